// Matches the tensors of two checkpoints by name and compares them by shape, dtype and
// digests. Reads no tensor data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/v1/operations.pb.h"
#include "proto/contract/dtype.h"
#include "storage/api/chunk_cursor.h"
#include "storage/api/reads.h"

namespace modelstore::server {

// One tensor name of either checkpoint.
struct ComparedTensor {
  using Kind = v1::CompareCheckpointsResponse::TensorDifference::Kind;

  // Indexes in the two manifests; -1 if the checkpoint does not have the tensor.
  int first = -1;
  int other = -1;
  // Indexes of the tensors that hold its bytes. They differ from the above if it is tied
  // to another tensor.
  int first_source = -1;
  int other_source = -1;
  // The difference found so far; unspecified if none was.
  Kind kind = v1::CompareCheckpointsResponse::TensorDifference::KIND_UNSPECIFIED;
  // The digests do not decide, because the tensors are divided into chunks differently.
  // The bytes must be read; the kind is KIND_CONTENT if they differ.
  bool undecided = false;
};

// Compares two tensors of equal dtype and shape by the digests of their chunks. If two
// chunks cover the same range of the tensor, they are equal if and only if their digests
// are. Otherwise the digests say nothing. Both models must use the same algorithm.
enum class ByDigest : uint8_t { kEqual, kDifferent, kUnknown };
ByDigest CompareDigests(storage::ChunkCursor first, storage::ChunkCursor other);
// The same for the chunks at the positions of the two cursors.
ByDigest CompareChunk(const storage::ChunkCursor& first,
                      const storage::ChunkCursor& other);

// Immutable after Make(). Holds both checkpoints open.
class ComparePlan {
 public:
  // Compares the selected tensors. Errors as of TensorSelector, and DATA_LOSS for a
  // tensor whose manifest is inconsistent.
  static absl::StatusOr<ComparePlan> Make(std::shared_ptr<storage::Read> first,
                                          std::shared_ptr<storage::Read> other,
                                          const v1::TensorSelection& selection);

  const std::shared_ptr<storage::Read>& first() const { return first_; }
  const std::shared_ptr<storage::Read>& other() const { return other_; }
  // In the order of the first manifest, followed by those that only the other has, in the
  // order of the other.
  const std::vector<ComparedTensor>& tensors() const { return tensors_; }

  // True if the bytes of the tensor must be read: it is undecided, or its norms are
  // requested and it differs in content or dtype.
  static bool IsRead(const ComparedTensor& tensor, bool with_norms);
  // Size of the tensor in the first checkpoint, which must have it.
  int64_t SizeBytes(const ComparedTensor& tensor) const;

  // False if the two models use different digest algorithms.
  bool DigestsComparable() const;

  // Returns the names of the selected sections whose values differ, sorted.
  std::vector<std::string> DifferentSections(const v1::TensorSelection& selection) const;

 private:
  // Sets kind and undecided of a tensor that both checkpoints have.
  absl::Status Decide(ComparedTensor* tensor) const;

  std::shared_ptr<storage::Read> first_;
  std::shared_ptr<storage::Read> other_;
  std::vector<ComparedTensor> tensors_;
};

}  // namespace modelstore::server
