#include "client/internal/streaming_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace modelstore::internal {
namespace {

using Copy = void (*)(char* to, const char* from, size_t bytes);

void CachedCopy(char* to, const char* from, size_t bytes) {
  std::memcpy(to, from, bytes);
}

#ifdef __x86_64__
constexpr size_t kLine = 64;

// `to` is aligned to a cache line and `bytes` is a multiple of its size.
void StreamLinesSse2(char* to, const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += sizeof(__m128i)) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  }
}

__attribute__((target("avx512f"))) void StreamLinesAvx512(char* to, const char* from,
                                                          size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
  }
}

template <Copy stream_lines>
void CopyBy(char* to, const char* from, size_t bytes) {
  const size_t head = std::min<size_t>(bytes, -reinterpret_cast<uintptr_t>(to) % kLine);
  const size_t lines = (bytes - head) / kLine * kLine;
  std::memcpy(to, from, head);
  stream_lines(to + head, from + head, lines);
  std::memcpy(to + head + lines, from + head + lines, bytes - head - lines);
  // Non-temporal stores are not ordered by a release operation such as unlocking a mutex.
  _mm_sfence();
}
#endif

}  // namespace

std::vector<Copy> StreamingCopies() {
  std::vector<Copy> copies;
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f")) copies.push_back(CopyBy<StreamLinesAvx512>);
  copies.push_back(CopyBy<StreamLinesSse2>);
#endif
  copies.push_back(CachedCopy);
  return copies;
}

void StreamingCopy(char* to, const char* from, size_t bytes) {
  static const Copy copy = StreamingCopies().front();
  copy(to, from, bytes);
}

}  // namespace modelstore::internal
