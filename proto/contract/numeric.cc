#include "proto/contract/numeric.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace modelstore {
namespace {

[[gnu::always_inline]] inline uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

[[gnu::always_inline]] inline float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// One struct per element type: how it is stored, and its exact float or, for
// float64, the nearest one. Everything passes through float, as in torch: a
// float64 is rounded twice on its way to 16 bits.
struct Float64 {
  using Stored = double;
  [[gnu::always_inline]] static inline double ToWide(double v) { return v; }
  [[gnu::always_inline]] static inline double FromFloat(float v) { return v; }
};

struct Float32 {
  using Stored = float;
  [[gnu::always_inline]] static inline float ToWide(float v) { return v; }
  [[gnu::always_inline]] static inline float FromFloat(float v) { return v; }
};

struct Bfloat16 {
  using Stored = uint16_t;
  [[gnu::always_inline]] static inline float ToWide(uint16_t v) {
    return FromBits(static_cast<uint32_t>(v) << 16);
  }
  [[gnu::always_inline]] static inline uint16_t FromFloat(float v) {
    const uint32_t bits = Bits(v);
    // Half of the last kept bit's unit, less one unless that bit is odd: ties go
    // to even. A carry into the exponent is the right answer, infinity included.
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
  }
};

struct Float16 {
  using Stored = uint16_t;
  [[gnu::always_inline]] static inline float ToWide(uint16_t v) {
    const uint32_t sign = static_cast<uint32_t>(v & 0x8000) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(v & 0x7fff);
    // Exponent and mantissa at float32's places; 112 is the difference of the
    // biases, once more for what was infinity or NaN.
    const uint32_t shifted = magnitude << 13;
    const uint32_t normal = shifted + (112u << 23);
    const uint32_t special =
        (shifted + (224u << 23)) | (magnitude > 0x7c00 ? 0x00400000u : 0u);  // quiet
    // A subnormal's mantissa behind a leading one of 2^-14, which is then taken
    // away: the subtraction normalises it.
    const uint32_t subnormal =
        Bits(FromBits(shifted + (113u << 23)) - FromBits(113u << 23));
    uint32_t bits = normal;
    bits = magnitude >= 0x7c00 ? special : bits;
    bits = magnitude < 0x0400 ? subnormal : bits;
    return FromBits(sign | bits);
  }
  [[gnu::always_inline]] static inline uint16_t FromFloat(float v) {
    const uint32_t bits = Bits(v);
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    // Normal results: re-bias, round to nearest even as for bfloat16.
    const uint32_t normal =
        (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    // Below 2^-14: adding 0.5, whose unit in the last place is 2^-24, makes the
    // addition itself round to float16's subnormal step.
    const uint32_t subnormal = Bits(FromBits(magnitude) + 0.5f) - Bits(0.5f);
    uint32_t result = normal;
    result = magnitude < 0x38800000 ? subnormal : result;
    result = magnitude >= 0x477ff000 ? 0x7c00 : result;  // rounds beyond 65504
    result = magnitude > 0x7f800000 ? 0x7e00 : result;
    return static_cast<uint16_t>(sign | result);
  }
};

// Elements may lie at any address: they are moved by memcpy, which the compiler
// knows, and vectorises the loop all the same.
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
    // Bits as they are, NaN's included.
    std::memcpy(to_bytes, from_bytes, static_cast<size_t>(count * ElementSize(from)));
  } else {
    kernel(from_bytes, to_bytes, count);
  }
  return absl::OkStatus();
}

}  // namespace modelstore
