// Memory for the blocks that RocksDB reads chunks into. On virtual machines the first
// access to new memory costs several times the copy itself, so large buffers are reused.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "proto/contract/mutex.h"
#include "rocksdb/memory_allocator.h"

namespace modelstore::storage::rocks {

// Thread-safe. Keeps at most `max_free_bytes` of unused buffers.
class BufferPool final : public rocksdb::MemoryAllocator {
 public:
  explicit BufferPool(size_t max_free_bytes);
  ~BufferPool() override;

  const char* Name() const override { return "modelstore.BufferPool"; }
  void* Allocate(size_t size) override;
  void Deallocate(void* p) override;

  struct Counts {
    int64_t fresh = 0;   // large buffers mapped
    int64_t reused = 0;  // large buffers taken from the pool
    int64_t small = 0;   // left to malloc
    size_t free_bytes = 0;
    size_t used_bytes = 0;  // of large buffers
  };
  Counts counts() const EXCLUDES(mutex_);

 private:
  // Buffers are reused only within their size class; larger ones are always unmapped.
  static constexpr int kClasses = 4;

  const size_t max_free_bytes_;
  mutable Mutex mutex_;
  std::array<std::vector<void*>, kClasses> free_ GUARDED_BY(mutex_);
  Counts counts_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::storage::rocks
