// Tells whether a stored version holds what a save would store: a request_id that led
// to a version is repeated with the same content, or refused.
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
  // `ours` is the manifest with every digest, or with none: then only the places of the
  // bytes are compared. With `whole` it is all of the version; else one worker's
  // contribution, which the version must contain.
  SameContent(std::vector<v1::ManifestPart> ours, bool whole);

  // A tensor of the version as ListTensors gives it, with its digests in hex if `ours`
  // has digests; in the version's order.
  void AddTensor(const v1::Tensor& stored);
  // All sections of the version with their values. After the last tensor.
  void AddSections(const std::vector<v1::Section>& stored);

  // All attachments of the version.
  void AddAttachments(
      const google::protobuf::RepeatedPtrField<v1::AttachmentInfo>& stored);

  // The first difference, such as `tensor model:w has other bytes`; empty if there is
  // none. After AddSections().
  const std::string& difference() const { return difference_; }

 private:
  void Note(std::string difference) {
    if (difference_.empty()) difference_ = std::move(difference);
  }

  bool whole_;
  // Each with the pieces of all views that have its name, as the server merges them.
  std::vector<v1::Tensor> tensors_;
  std::vector<v1::Section> sections_;
  // By name: media type and digest in hex.
  absl::flat_hash_map<std::string, std::pair<std::string, std::string>> attachments_;
  absl::flat_hash_map<std::string, size_t> by_name_;
  size_t stored_tensors_ = 0;
  size_t found_ = 0;
  std::string difference_;
};

// Reads the manifest of a stored version and compares it with `ours`, as SameContent
// does. Empty if there is no difference. If the server cannot list the digests, such as
// those of a tensor that has more than one answer holds, the version need only have
// every chunk of `ours`, in whatever place.
absl::StatusOr<std::string> DifferenceFrom(Connection& connection,
                                           const std::string& checkpoint,
                                           std::vector<v1::ManifestPart> ours, bool whole,
                                           Deadline deadline, const Sleeper& sleeper);

}  // namespace modelstore::internal
