// Compares a stored version with the content of a save. A save with a request_id that has
// already produced a version succeeds only if the content is equal.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "client/internal/retry.h"
#include "modelstore/connection.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"

namespace modelstore::internal {

class SameContent {
 public:
  // `ours` is the save's manifest with all digests, or without any: then only the layout
  // is compared. With `whole` it must equal the version; otherwise it is one worker's
  // contribution, which the version must contain.
  SameContent(std::vector<v1::ManifestPart> ours, bool whole);

  // Adds a tensor of the version as returned by ListTensors, with digests in hex if
  // `ours` has digests. Must be called in the version's order.
  void AddTensor(const v1::Tensor& stored);
  // Adds all sections of the version with their values. Called after the last tensor.
  void AddSections(const std::vector<v1::Section>& stored);

  // Adds all attachments of the version.
  void AddAttachments(
      const google::protobuf::RepeatedPtrField<v1::AttachmentInfo>& stored);

  // The first difference, such as `tensor model:w has other bytes`; empty if there is
  // none. Valid after AddSections().
  const std::string& difference() const { return difference_; }

 private:
  void Note(std::string difference) {
    if (difference_.empty()) difference_ = std::move(difference);
  }

  bool whole_;
  // One per name, with the pieces of all its views, as the server merges them.
  std::vector<v1::Tensor> tensors_;
  std::vector<v1::Section> sections_;
  // By name: media type and digest in hex.
  absl::flat_hash_map<std::string, std::pair<std::string, std::string>> attachments_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  size_t stored_tensors_ = 0;
  size_t found_ = 0;
  std::string difference_;
};

// Reads the manifest of a stored version and compares it with `ours`. Empty if there is
// no difference. If the server cannot list the digests (a tensor has more than fit in one
// answer), it only checks that the version contains every chunk of `ours` at any place.
absl::StatusOr<std::string> DifferenceFrom(Connection& connection,
                                           const std::string& checkpoint,
                                           std::vector<v1::ManifestPart> ours, bool whole,
                                           Deadline deadline, const Sleeper& sleeper);

}  // namespace modelstore::internal
