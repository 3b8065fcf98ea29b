// Memory into which an asynchronous save copies bytes that the caller may change. It is
// kept between saves, because the first access to new pages costs several times the copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Thread-safe. A block returns to the pool with its last reference. Memory returns to the
// system when the pool and all blocks are destroyed; blocks keep the pool alive.
class StagingPool : public std::enable_shared_from_this<StagingPool> {
 public:
  static constexpr size_t kBlockBytes = size_t{32} << 20;

  static std::shared_ptr<StagingPool> Make();
  ~StagingPool();

  // kBlockBytes of memory, or null if the system has none.
  std::shared_ptr<char> TakeBlock();
  // Bytes obtained from the system, in use or not.
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

// Copies on up to `threads` threads, including the calling one. The others run at lower
// priority, so they only use idle cores. The calling thread keeps its priority: its
// caller waits for the copy.
void CopyInParallel(const std::vector<CopyJob>& jobs, int threads);

}  // namespace modelstore::internal
