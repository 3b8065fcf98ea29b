#include "client/internal/staging_pool.h"

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "client/internal/streaming_copy.h"
#include "client/internal/threads.h"

namespace modelstore::internal {
namespace {

// Pieces never share a cache line, and copies are aligned.
constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// Smaller copies may stay in the caches until they are digested.
constexpr size_t kStreamingBytes = size_t{32} << 20;

char* MapBlock() {
  // Maps more than needed and unmaps both ends, to align to huge pages.
  const size_t mapped = StagingPool::kBlockBytes + kHugePage;
  void* const raw =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (aligned > begin) munmap(raw, aligned - begin);
  const uintptr_t end = aligned + StagingPool::kBlockBytes;
  if (begin + mapped > end) {
    munmap(reinterpret_cast<void*>(end), begin + mapped - end);
  }
  char* const block = reinterpret_cast<char*>(aligned);
  madvise(block, StagingPool::kBlockBytes, MADV_HUGEPAGE);
  return block;
}

}  // namespace

std::shared_ptr<StagingPool> StagingPool::Make() {
  return std::shared_ptr<StagingPool>(new StagingPool());
}

StagingPool::~StagingPool() {
  MutexLock lock(mutex_);
  for (char* block : free_) munmap(block, kBlockBytes);
}

std::shared_ptr<char> StagingPool::TakeBlock() {
  char* block = nullptr;
  {
    MutexLock lock(mutex_);
    if (!free_.empty()) {
      block = free_.back();
      free_.pop_back();
    }
  }
  if (block == nullptr) {
    block = MapBlock();
    if (block == nullptr) return nullptr;
    MutexLock lock(mutex_);
    ++blocks_;
  }
  // The deleter keeps the pool alive until the last block is returned.
  return std::shared_ptr<char>(block,
                               [pool = shared_from_this()](char* b) { pool->Return(b); });
}

int64_t StagingPool::size_bytes() const {
  MutexLock lock(mutex_);
  return blocks_ * static_cast<int64_t>(kBlockBytes);
}

void StagingPool::Return(char* block) {
  MutexLock lock(mutex_);
  free_.push_back(block);
}

// The rest of a block that is too small for the next piece stays unused.
StagingArea::Piece StagingArea::Take(size_t bytes) {
  const size_t aligned = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (static_cast<int64_t>(bytes) > left_) return {};
  if (block_ == nullptr || used_ + aligned > StagingPool::kBlockBytes) {
    block_ = pool_->TakeBlock();
    used_ = 0;
    if (block_ == nullptr) return {};
  }
  Piece piece{block_.get() + used_, block_};
  used_ += aligned;
  left_ -= static_cast<int64_t>(bytes);
  return piece;
}

void CopyInParallel(const std::vector<CopyJob>& jobs, int threads) {
  size_t bytes = 0;
  for (const CopyJob& job : jobs) bytes += job.bytes;
  std::atomic<size_t> next{0};
  // Threads take jobs one by one, so a slow helper does not delay the others.
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      if (bytes < kStreamingBytes) {
        std::memcpy(jobs[i].to, jobs[i].from, jobs[i].bytes);
      } else {
        StreamingCopy(jobs[i].to, jobs[i].from, jobs[i].bytes);
      }
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads && static_cast<size_t>(i) < jobs.size(); ++i) {
    helpers.push_back(TryThread([&work] {
      LowerPriority();
      work();
    }));
  }
  work();
  for (std::thread& helper : helpers) {
    if (helper.joinable()) helper.join();
  }
}

}  // namespace modelstore::internal
