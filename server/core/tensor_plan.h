// The tensors that a request selects, laid end to end as one sequence of bytes, and
// where in the stored tensors each of them comes from: what LoadCheckpoint sends and
// VerifyCheckpoint reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/dtype.h"
#include "storage/api/reads.h"

namespace modelstore::server {

// One tensor of the sequence.
struct PlannedTensor {
  // Position in the manifest of the tensor as the client knows it, and of the one
  // whose pieces hold its bytes (another one where it is tied).
  int described = 0;
  int source = 0;
  // Its first byte in the sequence, and its bytes there: 0 where the tensor it is
  // tied to brings them.
  int64_t position = 0;
  int64_t size_bytes = 0;
  // The first stored byte wanted: the begin of a row slice.
  int64_t source_begin = 0;
  // Rows delivered; -1: all.
  int64_t rows = -1;
  DType from = DType::kUint8;
  DType to = DType::kUint8;
  // `section:key` of an earlier tensor of the sequence with the same bytes.
  std::string tied_to;
};

class TensorPlan {
 public:
  // `request` has been resolved: no resume_token. The fields that select are
  // checked here.
  static absl::StatusOr<TensorPlan> Make(std::shared_ptr<storage::Read> read,
                                         const v1::LoadCheckpointRequest& request);

  const storage::Read& read() const { return *read_; }
  const std::shared_ptr<storage::Read>& shared_read() const { return read_; }
  const std::vector<PlannedTensor>& tensors() const { return tensors_; }
  // Positions in the manifest of the selected sections.
  const std::vector<int>& sections() const { return sections_; }
  int64_t total_bytes() const { return total_bytes_; }

  // As delivered: shape and dtype after slices and casts, without pieces.
  v1::Tensor Describe(const PlannedTensor& tensor) const;
  // Position in tensors() of the one that holds the byte at `position`, which is
  // less than total_bytes().
  size_t Find(int64_t position) const;

 private:
  std::shared_ptr<storage::Read> read_;
  std::vector<PlannedTensor> tensors_;
  std::vector<int> sections_;
  int64_t total_bytes_ = 0;
};

// The resume_token of a plan: storage's token, and what was selected.
std::string MakeResumeToken(const std::string& storage_token,
                            const v1::LoadCheckpointRequest& request);
// The request that the token was made of; its resume_token is storage's.
// INVALID_ARGUMENT for anything that MakeResumeToken did not make.
absl::StatusOr<v1::LoadCheckpointRequest> ReadResumeToken(absl::string_view token);

}  // namespace modelstore::server
