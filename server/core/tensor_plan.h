// The plan of a load: the selected tensors, concatenated into one sequence of bytes, and
// the place in the stored tensors that each comes from. LoadCheckpoint sends it,
// VerifyCheckpoint reads it. Making a plan reads no tensor data.
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
  // Indexes in the manifest of the selected tensor, and of the tensor whose pieces hold
  // its bytes. They differ if the selected tensor is tied to another.
  int described = 0;
  int source = 0;
  // Position of its first byte in the sequence, and its number of bytes there, after
  // slice and cast. 0 bytes if an earlier tensor of the sequence provides them (tied_to).
  int64_t position = 0;
  int64_t size_bytes = 0;
  // Offset of the first selected byte in the stored tensor; not 0 for a slice of rows.
  int64_t source_begin = 0;
  // Number of rows of a slice; -1: the whole tensor.
  int64_t rows = -1;
  // Stored and delivered dtype. They differ if the server casts.
  DType from = DType::kUint8;
  DType to = DType::kUint8;
  // `section:key` of an earlier tensor of the sequence with the same bytes; else empty.
  std::string tied_to;
};

// Immutable after Make(). Holds the checkpoint open.
class TensorPlan {
 public:
  // Selects tensors by the fields selection, slices and target_dtype of `request`, in
  // the order of the manifest, and validates these fields and `device`. A resume_token
  // must have been replaced by its request (ReadResumeToken()). Errors: INVALID_ARGUMENT,
  // NOT_FOUND for a section, key or pattern without a match, OUT_OF_RANGE for a slice
  // outside of its tensor, UNIMPLEMENTED for a cast, DATA_LOSS for a broken tie.
  static absl::StatusOr<TensorPlan> Make(std::shared_ptr<storage::Read> read,
                                         const v1::LoadCheckpointRequest& request);

  const storage::Read& read() const { return *read_; }
  const std::shared_ptr<storage::Read>& shared_read() const { return read_; }
  const std::vector<PlannedTensor>& tensors() const { return tensors_; }
  // Indexes in the manifest of the selected sections.
  const std::vector<int>& sections() const { return sections_; }
  // Length of the sequence.
  int64_t total_bytes() const { return total_bytes_; }

  // Returns the tensor as delivered: shape and dtype after slice and cast, no pieces.
  v1::Tensor Describe(const PlannedTensor& tensor) const;
  // Returns the index in tensors() of the tensor with the byte at `position`, which must
  // be less than total_bytes().
  size_t Find(int64_t position) const;

 private:
  std::shared_ptr<storage::Read> read_;
  std::vector<PlannedTensor> tensors_;
  std::vector<int> sections_;
  int64_t total_bytes_ = 0;
};

// Makes the resume_token of a plan. It contains storage's token, which names the opened
// checkpoint, and the fields of `request` that select, so that the server need not keep
// the plan.
std::string MakeResumeToken(const std::string& storage_token,
                            const v1::LoadCheckpointRequest& request);
// Returns the request that the token was made of, with storage's token in resume_token.
// INVALID_ARGUMENT if MakeResumeToken() did not make it.
absl::StatusOr<v1::LoadCheckpointRequest> ReadResumeToken(absl::string_view token);

}  // namespace modelstore::server
