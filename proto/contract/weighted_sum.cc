#include "proto/contract/weighted_sum.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/contract/element.h"

namespace modelstore {
namespace {

using element::Bfloat16;
using element::Float16;
using element::Float32;
using element::Float64;

[[gnu::always_inline]] inline uint64_t Bits(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

[[gnu::always_inline]] inline double FromBits(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Rounds to odd: truncates the double to a float's 24 bits and sets the last bit if
// anything was truncated. Rounding the result again to at least two bits fewer gives the
// same value as rounding the double directly. NaN keeps a bit of its mantissa.
[[gnu::always_inline]] inline float RoundToOdd(double value) {
  const uint64_t bits = Bits(value);
  const uint64_t rest = bits & 0x1fffffff;
  return static_cast<float>(
      FromBits((bits & ~uint64_t{0x1fffffff}) | (rest != 0 ? 0x20000000 : 0)));
}

// Below the smallest normal number the spacing is constant: adding a number whose unit in
// the last place is that spacing rounds to it in one operation.
[[gnu::always_inline]] inline double ToStep(double value, double step) {
  const double anchor = step * 6755399441055744.0;  // 1.5 * 2^52
  return (value + anchor) - anchor;
}

template <typename To>
struct Rounding;

template <>
struct Rounding<Float64> {
  [[gnu::always_inline]] static inline double Round(double v) { return v; }
};

template <>
struct Rounding<Float32> {
  [[gnu::always_inline]] static inline float Round(double v) {
    return static_cast<float>(v);
  }
};

// `Normal` is the type's smallest normal number, `Step` the spacing below it.
template <typename To>
[[gnu::always_inline]] inline uint16_t RoundTo16(double v, double normal, double step) {
  const double magnitude = FromBits(Bits(v) & 0x7fffffffffffffff);
  const float odd = RoundToOdd(v);
  // Keeps the sign if the result is zero.
  const float fine = static_cast<float>(FromBits(
      (Bits(ToStep(v, step)) & 0x7fffffffffffffff) | (Bits(v) & 0x8000000000000000)));
  return To::FromFloat(magnitude < normal ? fine : odd);
}

template <>
struct Rounding<Bfloat16> {
  [[gnu::always_inline]] static inline uint16_t Round(double v) {
    return RoundTo16<Bfloat16>(v, 0x1p-126, 0x1p-133);
  }
};

template <>
struct Rounding<Float16> {
  [[gnu::always_inline]] static inline uint16_t Round(double v) {
    return RoundTo16<Float16>(v, 0x1p-14, 0x1p-24);
  }
};

template <typename From>
[[gnu::always_inline]] inline void AddLoop(const char* from, double coefficient,
                                           bool begin, double* __restrict__ sums,
                                           int64_t count) {
  using Stored = typename From::Stored;
  auto product = [&](int64_t i) __attribute__((always_inline)) {
    Stored stored;
    std::memcpy(&stored, from + i * sizeof(Stored), sizeof(Stored));
    return coefficient * static_cast<double>(From::ToWide(stored));
  };
  if (begin) {
    for (int64_t i = 0; i < count; ++i) sums[i] = product(i);
  } else {
    for (int64_t i = 0; i < count; ++i) sums[i] = sums[i] + product(i);
  }
}

template <typename To>
[[gnu::always_inline]] inline void RoundLoop(const double* sums, char* __restrict__ to,
                                             int64_t count) {
  using Stored = typename To::Stored;
  for (int64_t i = 0; i < count; ++i) {
    const Stored result = Rounding<To>::Round(sums[i]);
    std::memcpy(to + i * sizeof(Stored), &result, sizeof(Stored));
  }
}

struct Kernels {
  void (*add)(const char*, double, bool, double*, int64_t);
  void (*round)(const double*, char*, int64_t);
};

template <typename Type>
void AddBaseline(const char* from, double c, bool begin, double* sums, int64_t count) {
  AddLoop<Type>(from, c, begin, sums, count);
}
template <typename Type>
void RoundBaseline(const double* sums, char* to, int64_t count) {
  RoundLoop<Type>(sums, to, count);
}

#if defined(__x86_64__)
template <typename Type>
[[gnu::target("avx2")]] void AddAvx2(const char* from, double c, bool begin, double* sums,
                                     int64_t count) {
  AddLoop<Type>(from, c, begin, sums, count);
}
template <typename Type>
[[gnu::target("avx2")]] void RoundAvx2(const double* sums, char* to, int64_t count) {
  RoundLoop<Type>(sums, to, count);
}
#endif

template <typename Type>
Kernels Select() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return {&AddAvx2<Type>, &RoundAvx2<Type>};
#endif
  return {&AddBaseline<Type>, &RoundBaseline<Type>};
}

Kernels KernelsOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return Select<Float16>();
    case DType::kBfloat16:
      return Select<Bfloat16>();
    case DType::kFloat32:
      return Select<Float32>();
    case DType::kFloat64:
      return Select<Float64>();
    default:
      return {nullptr, nullptr};
  }
}

absl::Status NoSums(DType dtype) {
  const std::string_view name = DTypeName(dtype);
  return absl::InvalidArgumentError(
      absl::StrCat("no sums of ", absl::string_view(name.data(), name.size())));
}

}  // namespace

bool CanSum(DType dtype) { return KernelsOf(dtype).add != nullptr; }

absl::Status AddWeighted(DType dtype, const char* bytes, double coefficient, Sums what,
                         double* sums, int64_t count) {
  const Kernels kernels = KernelsOf(dtype);
  if (kernels.add == nullptr) return NoSums(dtype);
  kernels.add(bytes, coefficient, what == Sums::kBegin, sums, count);
  return absl::OkStatus();
}

absl::Status RoundSums(const double* sums, DType to, char* to_bytes, int64_t count) {
  const Kernels kernels = KernelsOf(to);
  if (kernels.round == nullptr) return NoSums(to);
  kernels.round(sums, to_bytes, count);
  return absl::OkStatus();
}

}  // namespace modelstore
