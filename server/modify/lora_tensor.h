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

// Elements of A, which is held in float64 while its weight is being computed: 32 MiB.
inline constexpr int64_t kMaxLoraElements = int64_t{4} << 20;
// Each element of the weight takes so many multiplications: a chunk is computed within
// a second.
inline constexpr int64_t kMaxLoraRank = 4096;

// A or B, flattened to two dimensions.
struct LoraFactor {
  SourcePtr source;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
};

// Cache of factors A in float64, shared by the adapters of a call: weights are computed
// one after another, so that each factor is read once for all parts of its weight. The
// oldest factors go first. Thread-safe.
class LoraFactors {
 public:
  using Values = std::shared_ptr<const std::vector<double>>;
  static constexpr int64_t kMaxBytes = kMaxLoraElements * int64_t{sizeof(double)};

  int64_t NewId() EXCLUDES(mutex_);
  // By how much a factor of `bytes` lets this grow at most.
  int64_t ExpectGrowth(int64_t bytes) EXCLUDES(mutex_);
  // Null if it is not held.
  Values Find(int64_t id) EXCLUDES(mutex_);
  void Add(int64_t id, Values values) EXCLUDES(mutex_);
  int64_t held_bytes() EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  int64_t last_id_ GUARDED_BY(mutex_) = 0;
  int64_t expected_bytes_ GUARDED_BY(mutex_) = 0;
  int64_t held_bytes_ GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<int64_t, Values> held_ GUARDED_BY(mutex_);
  // Their ids, the oldest first.
  std::deque<int64_t> order_ GUARDED_BY(mutex_);
};

// W + scale * (B * A), each element summed over A's rows in order in float64 and
// rounded once. B has as many columns as A has rows; both, and the weight, are of types
// that CanSum().
SourcePtr LoraSource(SourcePtr weight, DType dtype, LoraFactor a, LoraFactor b,
                     double scale, std::shared_ptr<LoraFactors> factors);

}  // namespace modelstore::server::modify
