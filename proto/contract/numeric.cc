#include "proto/contract/numeric.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "proto/contract/element.h"

namespace modelstore {
namespace {

// All casts go through float, as in torch: a float64 is rounded twice to become 16 bits.
using element::Bfloat16;
using element::Float16;
using element::Float32;
using element::Float64;

// From float32 and float64 PyTorch uses vector code, which gives 0xffff for NaN.
struct Bfloat16InVectors : Bfloat16 {
  [[gnu::always_inline]] static inline uint16_t FromFloat(float v) {
    return v != v ? 0xffff : Bfloat16::FromFloat(v);
  }
};

// Elements may be unaligned, so they are accessed by memcpy. The compiler still
// vectorizes the loop.
template <typename From, typename To>
[[gnu::always_inline]] inline void Loop(const char* from, char* __restrict__ to,
                                        int64_t count) {
  using Source = typename From::Stored;
  using Target = typename To::Stored;
  for (int64_t i = 0; i < count; ++i) {
    Source element;
    std::memcpy(&element, from + i * sizeof(Source), sizeof(Source));
    const Target result = To::FromFloat(static_cast<float>(From::ToWide(element)));
    std::memcpy(to + i * sizeof(Target), &result, sizeof(Target));
  }
}

using Kernel = void (*)(const char*, char*, int64_t);

template <typename From, typename To>
void Baseline(const char* from, char* to, int64_t count) {
  Loop<From, To>(from, to, count);
}

#if defined(__x86_64__)
template <typename From, typename To>
[[gnu::target("avx2")]] void Avx2(const char* from, char* to, int64_t count) {
  Loop<From, To>(from, to, count);
}
#endif

template <typename From, typename To>
Kernel Select() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return &Avx2<From, To>;
#endif
  return &Baseline<From, To>;
}

template <typename From>
Kernel SelectTo(DType to) {
  switch (to) {
    case DType::kFloat16:
      return Select<From, Float16>();
    case DType::kBfloat16:
      if constexpr (std::is_same_v<From, Float32> || std::is_same_v<From, Float64>) {
        return Select<From, Bfloat16InVectors>();
      }
      return Select<From, Bfloat16>();
    case DType::kFloat32:
      return Select<From, Float32>();
    case DType::kFloat64:
      return Select<From, Float64>();
    default:
      return nullptr;
  }
}

Kernel SelectFromTo(DType from, DType to) {
  switch (from) {
    case DType::kFloat16:
      return SelectTo<Float16>(to);
    case DType::kBfloat16:
      return SelectTo<Bfloat16>(to);
    case DType::kFloat32:
      return SelectTo<Float32>(to);
    case DType::kFloat64:
      return SelectTo<Float64>(to);
    default:
      return nullptr;
  }
}

}  // namespace

bool CanCast(DType from, DType to) { return SelectFromTo(from, to) != nullptr; }

absl::Status Cast(DType from, const char* from_bytes, DType to, char* to_bytes,
                  int64_t count) {
  const Kernel kernel = SelectFromTo(from, to);
  if (kernel == nullptr || count < 0) {
    const std::string_view from_name = DTypeName(from), to_name = DTypeName(to);
    return absl::InvalidArgumentError(
        absl::StrCat("no cast of ", count, " elements from ",
                     absl::string_view(from_name.data(), from_name.size()), " to ",
                     absl::string_view(to_name.data(), to_name.size())));
  }
  if (count == 0) return absl::OkStatus();
  if (from == to) {
    // Same type: bits are unchanged, including NaN.
    std::memcpy(to_bytes, from_bytes, static_cast<size_t>(count * ElementSize(from)));
  } else {
    kernel(from_bytes, to_bytes, count);
  }
  return absl::OkStatus();
}

bool HoldsOnlyBools(absl::string_view bytes) {
  constexpr size_t kWords = 8;
  constexpr size_t kBlock = kWords * sizeof(uint64_t);
  for (; bytes.size() >= kBlock; bytes.remove_prefix(kBlock)) {
    uint64_t words[kWords];
    std::memcpy(words, bytes.data(), kBlock);
    uint64_t any = 0;
    for (const uint64_t word : words) any |= word;
    if ((any & ~uint64_t{0x0101010101010101}) != 0) return false;
  }
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0 || c == 1; });
}

}  // namespace modelstore
