// Which tensors two checkpoints have in common, and what their digests say of them.
// Nothing is read.
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

// One tensor of either table, by its positions in the two manifests.
struct ComparedTensor {
  using Kind = v1::CompareCheckpointsResponse::TensorDifference::Kind;

  // -1 on the side that lacks it.
  int first = -1;
  int other = -1;
  // Those that hold the bytes: others where it is tied.
  int first_source = -1;
  int other_source = -1;
  // Unspecified: nothing is known to differ.
  Kind kind = v1::CompareCheckpointsResponse::TensorDifference::KIND_UNSPECIFIED;
  // Cut into chunks differently, so that digests do not tell: to be read, and of
  // KIND_CONTENT if its bytes turn out to differ.
  bool undecided = false;
};

// What the chunks' digests say of two tensors of equal dtype and shape. A digest
// speaks for a chunk as a whole: equal ones for equal bytes, others for different
// bytes, where both chunks hold the same range of the tensor. Elsewhere they say
// nothing.
enum class ByDigest : uint8_t { kEqual, kDifferent, kUnknown };
ByDigest CompareDigests(storage::ChunkCursor first, storage::ChunkCursor other);
// The same of the chunks at which the two are.
ByDigest CompareChunk(const storage::ChunkCursor& first,
                      const storage::ChunkCursor& other);

class ComparePlan {
 public:
  static absl::StatusOr<ComparePlan> Make(std::shared_ptr<storage::Read> first,
                                          std::shared_ptr<storage::Read> other,
                                          const v1::TensorSelection& selection);

  const std::shared_ptr<storage::Read>& first() const { return first_; }
  const std::shared_ptr<storage::Read>& other() const { return other_; }
  // In order of the first table; what only the other has after that.
  const std::vector<ComparedTensor>& tensors() const { return tensors_; }

  // Whether its bytes are to be read.
  static bool IsRead(const ComparedTensor& tensor, bool with_norms);
  // Bytes of the first checkpoint's tensor.
  int64_t SizeBytes(const ComparedTensor& tensor) const;

  // False where the two models use different algorithms: then no digest tells.
  bool DigestsComparable() const;

  // What does not lie in tensors: sections whose values differ, by name.
  std::vector<std::string> DifferentSections(const v1::TensorSelection& selection) const;

 private:
  absl::Status Decide(ComparedTensor* tensor) const;

  std::shared_ptr<storage::Read> first_;
  std::shared_ptr<storage::Read> other_;
  std::vector<ComparedTensor> tensors_;
};

}  // namespace modelstore::server
