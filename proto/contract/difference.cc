#include "proto/contract/difference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "proto/contract/numeric.h"

namespace modelstore {
namespace {

// Elements are widened in blocks that fit the first-level cache.
constexpr int kBlock = 512;

template <typename T>
[[gnu::always_inline]] inline T At(const char* bytes, int64_t i) {
  T value;
  std::memcpy(&value, bytes + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// IEEE-like types: an exponent of all ones is an infinity, or NaN if the mantissa is not
// 0.
template <typename Bits>
[[gnu::always_inline]] inline NonFinite CountLoop(const char* bytes, int64_t count,
                                                  Bits infinity) {
  const Bits magnitude_mask = static_cast<Bits>(std::numeric_limits<Bits>::max() >> 1);
  NonFinite found;
  // In blocks, so that the inner counters may be as narrow as the elements.
  for (int64_t at = 0; at < count; at += kBlock / 4) {
    const int64_t end = std::min<int64_t>(count, at + kBlock / 4);
    Bits nan = 0, infinite = 0;
    for (int64_t i = at; i < end; ++i) {
      const Bits magnitude = static_cast<Bits>(At<Bits>(bytes, i) & magnitude_mask);
      nan = static_cast<Bits>(nan + (magnitude > infinity));
      infinite = static_cast<Bits>(infinite + (magnitude == infinity));
    }
    found.nan += static_cast<int64_t>(nan);
    found.infinite += static_cast<int64_t>(infinite);
  }
  return found;
}

template <typename Bits>
NonFinite CountBaseline(const char* bytes, int64_t count, Bits infinity) {
  return CountLoop<Bits>(bytes, count, infinity);
}

#if defined(__x86_64__)
template <typename Bits>
[[gnu::target("avx2")]] NonFinite CountAvx2(const char* bytes, int64_t count,
                                            Bits infinity) {
  return CountLoop<Bits>(bytes, count, infinity);
}
#endif

template <typename Bits>
NonFinite CountIeee(const char* bytes, int64_t count, Bits infinity) {
#if defined(__x86_64__)
  static const bool avx2 = __builtin_cpu_supports("avx2");
  if (avx2) return CountAvx2<Bits>(bytes, count, infinity);
#endif
  return CountBaseline<Bits>(bytes, count, infinity);
}

// float8 types without infinity: only a few bit patterns are NaN.
NonFinite CountPatterns(const char* bytes, int64_t count, uint8_t mask, uint8_t pattern) {
  return {
      std::count_if(bytes, bytes + count,
                    [=](char c) { return (static_cast<uint8_t>(c) & mask) == pattern; }),
      0};
}

template <typename Bits>
NonFinite CountComplex(const char* bytes, int64_t count, Bits infinity) {
  const Bits magnitude_mask = static_cast<Bits>(std::numeric_limits<Bits>::max() >> 1);
  NonFinite found;
  for (int64_t i = 0; i < count; ++i) {
    const Bits re = static_cast<Bits>(At<Bits>(bytes, 2 * i) & magnitude_mask);
    const Bits im = static_cast<Bits>(At<Bits>(bytes, 2 * i + 1) & magnitude_mask);
    const bool nan = re > infinity || im > infinity;
    found.nan += nan;
    found.infinite += !nan && (re == infinity || im == infinity);
  }
  return found;
}

constexpr uint16_t kInfinity16 = 0x7c00;
constexpr uint16_t kInfinityBfloat16 = 0x7f80;
constexpr uint32_t kInfinity32 = 0x7f800000;
constexpr uint64_t kInfinity64 = 0x7ff0000000000000;

// Decodes a float8. `finite`: an exponent of all ones is an ordinary number. `nuz`: there
// is no negative zero; its pattern is the only NaN.
double Float8(uint8_t bits, int mantissa_bits, int bias, bool finite, bool nuz) {
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int exponent_mask = (1 << (7 - mantissa_bits)) - 1;
  const int exponent = bits >> mantissa_bits & exponent_mask;
  const double sign = (bits & 0x80) != 0 ? -1 : 1;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (nuz && bits == 0x80) return nan;
  if (!nuz && finite && (bits & 0x7f) == 0x7f) return nan;
  if (!nuz && !finite && exponent == exponent_mask) {
    return mantissa != 0 ? nan : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign *
         std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

using Float8Table = std::array<double, 256>;

Float8Table MakeFloat8(int mantissa_bits, int bias, bool finite, bool nuz) {
  Float8Table table;
  for (int i = 0; i < 256; ++i) {
    table[i] = Float8(static_cast<uint8_t>(i), mantissa_bits, bias, finite, nuz);
  }
  return table;
}

const Float8Table& Float8Of(DType dtype) {
  static const Float8Table e4m3fn = MakeFloat8(3, 7, true, false);
  static const Float8Table e5m2 = MakeFloat8(2, 15, false, false);
  static const Float8Table e4m3fnuz = MakeFloat8(3, 8, true, true);
  static const Float8Table e5m2fnuz = MakeFloat8(2, 16, true, true);
  switch (dtype) {
    case DType::kFloat8E4m3fn:
      return e4m3fn;
    case DType::kFloat8E5m2:
      return e5m2;
    case DType::kFloat8E4m3fnuz:
      return e4m3fnuz;
    default:
      return e5m2fnuz;
  }
}

template <typename T, typename Wide>
void Widen(const char* bytes, int64_t count, Wide* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Wide>(At<T>(bytes, i));
}

bool IsComplex(DType dtype) {
  return dtype == DType::kComplex32 || dtype == DType::kComplex64 ||
         dtype == DType::kComplex128;
}

bool IsInt64(DType dtype) { return dtype == DType::kInt64 || dtype == DType::kUint64; }

DType PartOf(DType complex) {
  return complex == DType::kComplex32   ? DType::kFloat16
         : complex == DType::kComplex64 ? DType::kFloat32
                                        : DType::kFloat64;
}

// Widens `count` real elements to a type that represents them exactly: double, or long
// double for 64-bit integers.
template <typename Wide>
void WidenReal(DType dtype, const char* bytes, int64_t count, Wide* out) {
  switch (dtype) {
    case DType::kBool:
      for (int64_t i = 0; i < count; ++i) out[i] = bytes[i] != 0 ? 1 : 0;
      return;
    case DType::kUint8:
      return Widen<uint8_t>(bytes, count, out);
    case DType::kInt8:
      return Widen<int8_t>(bytes, count, out);
    case DType::kInt16:
      return Widen<int16_t>(bytes, count, out);
    case DType::kUint16:
      return Widen<uint16_t>(bytes, count, out);
    case DType::kInt32:
      return Widen<int32_t>(bytes, count, out);
    case DType::kUint32:
      return Widen<uint32_t>(bytes, count, out);
    case DType::kInt64:
      return Widen<int64_t>(bytes, count, out);
    case DType::kUint64:
      return Widen<uint64_t>(bytes, count, out);
    case DType::kFloat32:
      return Widen<float>(bytes, count, out);
    case DType::kFloat64:
      return Widen<double>(bytes, count, out);
    case DType::kFloat16:
    case DType::kBfloat16: {
      float floats[2 * kBlock];
      // CanCast() holds for both types, so this cannot fail.
      Cast(dtype, bytes, DType::kFloat32, reinterpret_cast<char*>(floats), count)
          .IgnoreError();
      for (int64_t i = 0; i < count; ++i) out[i] = floats[i];
      return;
    }
    default: {
      const Float8Table& table = Float8Of(dtype);
      for (int64_t i = 0; i < count; ++i) out[i] = table[static_cast<uint8_t>(bytes[i])];
      return;
    }
  }
}

// Widens to pairs of real and imaginary parts; a real element has the imaginary part 0.
void WidenComplex(DType dtype, const char* bytes, int64_t count, double* out) {
  if (IsComplex(dtype)) return WidenReal<double>(PartOf(dtype), bytes, 2 * count, out);
  double real[kBlock];
  WidenReal<double>(dtype, bytes, count, real);
  for (int64_t i = 0; i < count; ++i) {
    out[2 * i] = real[i];
    out[2 * i + 1] = 0;
  }
}

}  // namespace

NonFinite CountNonFinite(DType dtype, const char* bytes, int64_t count) {
  switch (dtype) {
    case DType::kFloat16:
      return CountIeee<uint16_t>(bytes, count, kInfinity16);
    case DType::kBfloat16:
      return CountIeee<uint16_t>(bytes, count, kInfinityBfloat16);
    case DType::kFloat32:
      return CountIeee<uint32_t>(bytes, count, kInfinity32);
    case DType::kFloat64:
      return CountIeee<uint64_t>(bytes, count, kInfinity64);
    case DType::kComplex32:
      return CountComplex<uint16_t>(bytes, count, kInfinity16);
    case DType::kComplex64:
      return CountComplex<uint32_t>(bytes, count, kInfinity32);
    case DType::kComplex128:
      return CountComplex<uint64_t>(bytes, count, kInfinity64);
    case DType::kFloat8E5m2:
      return CountIeee<uint8_t>(bytes, count, 0x7c);
    case DType::kFloat8E4m3fn:
      return CountPatterns(bytes, count, 0x7f, 0x7f);
    case DType::kFloat8E4m3fnuz:
    case DType::kFloat8E5m2fnuz:
      return CountPatterns(bytes, count, 0xff, 0x80);
    default:
      return {};
  }
}

// Adds one widened block.
struct DifferenceKernels {
  // `count` is a multiple of kLanes; the block was padded with zeros.
  [[gnu::always_inline]] static inline void RealLoop(const double* a, const double* b,
                                                     int64_t count,
                                                     DifferenceSums& sums) {
    constexpr int kLanes = DifferenceSums::kLanes;
    double largest[kLanes] = {}, squares[kLanes] = {}, differences[kLanes] = {};
    int64_t differing[kLanes] = {}, nan[kLanes] = {};
    for (int64_t i = 0; i < count; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const double x = a[i + lane], y = b[i + lane];
        const bool x_nan = x != x, y_nan = y != y;
        const bool same = x_nan | y_nan | (x == y);
        const double d = same ? 0 : std::fabs(x - y);
        largest[lane] = d > largest[lane] ? d : largest[lane];
        differences[lane] += d * d;
        squares[lane] += x_nan ? 0 : x * x;
        differing[lane] += same ? 0 : 1;
        nan[lane] += x_nan != y_nan ? 1 : 0;
      }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      sums.max_abs_ = std::max(sums.max_abs_, largest[lane]);
      sums.difference_squares_[lane] += differences[lane];
      sums.squares_[lane] += squares[lane];
      sums.differing_ += differing[lane];
      sums.nan_ += nan[lane];
    }
  }

  static void RealBaseline(const double* a, const double* b, int64_t count,
                           DifferenceSums& sums) {
    RealLoop(a, b, count, sums);
  }
#if defined(__x86_64__)
  [[gnu::target("avx2")]] static void RealAvx2(const double* a, const double* b,
                                               int64_t count, DifferenceSums& sums) {
    RealLoop(a, b, count, sums);
  }
#endif

  static void Real(const double* a, const double* b, int64_t count,
                   DifferenceSums& sums) {
#if defined(__x86_64__)
    static const bool avx2 = __builtin_cpu_supports("avx2");
    if (avx2) return RealAvx2(a, b, count, sums);
#endif
    RealBaseline(a, b, count, sums);
  }

  static void AddOne(bool a_nan, bool b_nan, bool equal, double distance, double size,
                     DifferenceSums& sums) {
    if (!a_nan) sums.squares_[0] += size * size;
    if (a_nan || b_nan) {
      sums.nan_ += a_nan != b_nan;
    } else if (!equal) {
      sums.max_abs_ = std::max(sums.max_abs_, distance);
      sums.difference_squares_[0] += distance * distance;
      ++sums.differing_;
    }
  }

  static void Exact(const long double* a, const long double* b, int64_t count,
                    DifferenceSums& sums) {
    for (int64_t i = 0; i < count; ++i) {
      AddOne(a[i] != a[i], b[i] != b[i], a[i] == b[i],
             static_cast<double>(std::fabs(a[i] - b[i])), static_cast<double>(a[i]),
             sums);
    }
  }

  // Equal infinities in a part have distance 0 there.
  static double Part(double x, double y) { return x == y ? 0 : x - y; }

  static void Complex(const double* a, const double* b, int64_t count,
                      DifferenceSums& sums) {
    for (int64_t i = 0; i < 2 * count; i += 2) {
      AddOne(std::isnan(a[i]) || std::isnan(a[i + 1]),
             std::isnan(b[i]) || std::isnan(b[i + 1]),
             a[i] == b[i] && a[i + 1] == b[i + 1],
             std::hypot(Part(a[i], b[i]), Part(a[i + 1], b[i + 1])),
             std::hypot(a[i], a[i + 1]), sums);
    }
  }
};

void DifferenceSums::Add(DType a_dtype, const char* a, DType b_dtype, const char* b,
                         int64_t count) {
  const bool complex = IsComplex(a_dtype) || IsComplex(b_dtype);
  const bool exact = IsInt64(a_dtype) || IsInt64(b_dtype);
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = std::min<int64_t>(kBlock, count - at);
    const char* from_a = a + at * ElementSize(a_dtype);
    const char* from_b = b + at * ElementSize(b_dtype);
    if (complex) {
      double wide_a[2 * kBlock], wide_b[2 * kBlock];
      WidenComplex(a_dtype, from_a, n, wide_a);
      WidenComplex(b_dtype, from_b, n, wide_b);
      DifferenceKernels::Complex(wide_a, wide_b, n, *this);
    } else if (exact) {
      long double wide_a[kBlock], wide_b[kBlock];
      WidenReal(a_dtype, from_a, n, wide_a);
      WidenReal(b_dtype, from_b, n, wide_b);
      DifferenceKernels::Exact(wide_a, wide_b, n, *this);
    } else {
      double wide_a[kBlock], wide_b[kBlock];
      WidenReal(a_dtype, from_a, n, wide_a);
      WidenReal(b_dtype, from_b, n, wide_b);
      const int64_t whole = (n + kLanes - 1) / kLanes * kLanes;
      std::fill(wide_a + n, wide_a + whole, 0);
      std::fill(wide_b + n, wide_b + whole, 0);
      DifferenceKernels::Real(wide_a, wide_b, whole, *this);
    }
  }
}

void DifferenceSums::Merge(const DifferenceSums& other) {
  max_abs_ = std::max(max_abs_, other.max_abs_);
  for (int lane = 0; lane < kLanes; ++lane) {
    difference_squares_[lane] += other.difference_squares_[lane];
    squares_[lane] += other.squares_[lane];
  }
  differing_ += other.differing_;
  nan_ += other.nan_;
}

double DifferenceSums::difference_norm() const {
  return std::sqrt(
      std::accumulate(difference_squares_.begin(), difference_squares_.end(), 0.0));
}

double DifferenceSums::norm() const {
  return std::sqrt(std::accumulate(squares_.begin(), squares_.end(), 0.0));
}

}  // namespace modelstore
