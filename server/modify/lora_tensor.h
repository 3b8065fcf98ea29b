// A weight with a low-rank adapter merged into it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "proto/contract/dtype.h"
#include "proto/contract/mutex.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// Maximum number of elements of a factor A, which is held in memory in float64: 32 MiB.
inline constexpr int64_t kMaxLoraElements = int64_t{4} << 20;
// Maximum rank: the number of multiplications for each element of the weight. With this
// limit a chunk is computed within a second.
inline constexpr int64_t kMaxLoraRank = 4096;

// A factor of an adapter, flattened to two dimensions: A is [rank, in], B is [out, rank].
struct LoraFactor {
  SourcePtr source;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
};

// Cache of factors A in float64, shared by all adapters of a call. Weights are computed
// one after another, chunk by chunk, so a small cache is enough to read each factor only
// once. Evicts the oldest factor beyond kMaxBytes. Thread-safe.
class LoraFactors {
 public:
  using Values = std::shared_ptr<const std::vector<double>>;
  static constexpr int64_t kMaxBytes = kMaxLoraElements * int64_t{sizeof(double)};

  // Returns an id for a factor.
  int64_t NewId() EXCLUDES(mutex_);
  // Returns by how much a further factor of `bytes` increases the maximum size of the
  // cache: 0 once that is kMaxBytes. For reserving memory before anything is computed.
  int64_t ExpectGrowth(int64_t bytes) EXCLUDES(mutex_);
  // Null if the factor is not in the cache. Values stay valid after their eviction.
  Values Find(int64_t id) EXCLUDES(mutex_);
  void Add(int64_t id, Values values) EXCLUDES(mutex_);
  int64_t held_bytes() EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  int64_t last_id_ GUARDED_BY(mutex_) = 0;
  int64_t expected_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t held_bytes_ GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<int64_t, Values> held_ GUARDED_BY(mutex_);
  // Ids of the factors in `held_`, the oldest first.
  std::deque<int64_t> order_ GUARDED_BY(mutex_);
};

// The weight W + scale * (B * A). Each element is summed over the rows of A in order, in
// float64, and rounded once. B must have as many columns as A has rows, B * A as many
// elements as W, and the types of A, B and W must satisfy CanSum().
SourcePtr LoraSource(SourcePtr weight, DType dtype, LoraFactor a, LoraFactor b,
                     double scale, std::shared_ptr<LoraFactors> factors);

}  // namespace modelstore::server::modify
