#include "storage/rocksdb/buffer_pool.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Smaller buffers are left to malloc, whose own caches are as good.
constexpr size_t kSmallest = size_t{256} << 10;
// Space beside one chunk for the block's keys, restarts and trailer.
constexpr size_t kSlack = size_t{64} << 10;
constexpr int kSmall = -1;
constexpr int kOversize = -2;

// Precedes every buffer. Its size of 64 bytes keeps the buffer cache-line aligned.
struct alignas(64) Header {
  int size_class;
  size_t mapped_bytes;
};

// Classes hold one chunk of 512 KiB, 1, 2 or 4 MiB each.
size_t ClassBytes(int size_class) { return (size_t{512} << 10 << size_class) + kSlack; }

int ClassOf(size_t size, int classes) {
  if (size <= kSmallest) return kSmall;
  for (int i = 0; i < classes; ++i) {
    if (size <= ClassBytes(i)) return i;
  }
  return kOversize;
}

// Aligns large buffers to huge pages, so that they are backed by few of them and fault
// rarely. Throws bad_alloc, as RocksDB expects of an allocator.
void* Map(size_t bytes) {
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* raw = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) throw std::bad_alloc();
  if (slack == 0) return raw;
  char* begin = static_cast<char*>(raw);
  const size_t lead =
      (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (lead > 0) munmap(begin, lead);
  if (slack > lead) munmap(begin + lead + bytes, slack - lead);
  madvise(begin + lead, bytes, MADV_HUGEPAGE);
  return begin + lead;
}

}  // namespace

BufferPool::BufferPool(size_t max_free_bytes) : max_free_bytes_(max_free_bytes) {}

BufferPool::~BufferPool() {
  for (const auto& list : free_) {
    for (void* p : list) {
      Header* header = static_cast<Header*>(p) - 1;
      munmap(header, header->mapped_bytes);
    }
  }
}

void* BufferPool::Allocate(size_t size) {
  const int size_class = ClassOf(size, kClasses);
  if (size_class == kSmall) {
    void* raw =
        std::aligned_alloc(alignof(Header), (sizeof(Header) + size + sizeof(Header) - 1) /
                                                sizeof(Header) * sizeof(Header));
    if (raw == nullptr) throw std::bad_alloc();
    Header* header = new (raw) Header{kSmall, 0};
    MutexLock lock(mutex_);
    ++counts_.small;
    return header + 1;
  }
  const size_t bytes =
      (sizeof(Header) + (size_class == kOversize ? size : ClassBytes(size_class)) +
       4095) &
      ~size_t{4095};
  {
    MutexLock lock(mutex_);
    counts_.used_bytes += bytes;
    if (size_class >= 0 && !free_[size_class].empty()) {
      void* p = free_[size_class].back();
      free_[size_class].pop_back();
      counts_.free_bytes -= bytes;
      ++counts_.reused;
      return p;
    }
    ++counts_.fresh;
  }
  return new (Map(bytes)) Header{size_class, bytes} + 1;
}

void BufferPool::Deallocate(void* p) {
  Header* header = static_cast<Header*>(p) - 1;
  if (header->size_class == kSmall) {
    std::free(header);
    return;
  }
  const size_t bytes = header->mapped_bytes;
  {
    MutexLock lock(mutex_);
    counts_.used_bytes -= bytes;
    if (header->size_class >= 0 && counts_.free_bytes + bytes <= max_free_bytes_) {
      free_[header->size_class].push_back(p);
      counts_.free_bytes += bytes;
      return;
    }
  }
  munmap(header, bytes);
}

BufferPool::Counts BufferPool::counts() const {
  MutexLock lock(mutex_);
  return counts_;
}

}  // namespace modelstore::storage::rocks
