// Memory into which an asynchronous save copies what its caller may change
// again. Kept between saves, because touching fresh pages costs several times
// the copying.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Thread-safe. Blocks go back to the pool when nobody holds them any more, and
// to the system when the pool and every block are gone.
class StagingPool : public std::enable_shared_from_this<StagingPool> {
 public:
  static constexpr size_t kBlockBytes = size_t{32} << 20;

  static std::shared_ptr<StagingPool> Make();
  ~StagingPool();

  // kBlockBytes of memory, or null if the system has none.
  std::shared_ptr<char> TakeBlock();
  // Bytes that the pool has from the system, in use or not.
  int64_t size_bytes() const;

 private:
  StagingPool() = default;
  void Return(char* block);

  mutable Mutex mutex_;
  std::vector<char*> free_ GUARDED_BY(mutex_);
  int64_t blocks_ GUARDED_BY(mutex_) = 0;
};

// Cuts blocks of a pool into pieces. Used by one thread.
class StagingArea {
 public:
  StagingArea(std::shared_ptr<StagingPool> pool, int64_t max_bytes)
      : pool_(std::move(pool)), left_(max_bytes) {}

  struct Piece {
    char* data = nullptr;  // Null: the limit is reached, or memory is short.
    std::shared_ptr<const void> owner;
  };
  // `bytes` is at most a block.
  Piece Take(size_t bytes);

 private:
  const std::shared_ptr<StagingPool> pool_;
  int64_t left_;
  std::shared_ptr<char> block_;
  size_t used_ = 0;
};

struct CopyJob {
  char* to;
  const char* from;
  size_t bytes;
};

// Copies on up to `threads` threads, this one included. The others step back: they use
// cores that nobody computes on, which may be that of a caller who waits for the copy.
void CopyInParallel(const std::vector<CopyJob>& jobs, int threads);

}  // namespace modelstore::internal
