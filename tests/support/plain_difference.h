// Reference implementation of tensor differences for tests of the kernels: computed
// element by element from the definitions of the types.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "proto/contract/dtype.h"

namespace modelstore::support {

template <typename T>
T Raw(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// Decodes an IEEE-like binary float of `bits` bits with `mantissa_bits` of mantissa.
inline long double Float(uint32_t pattern, int bits, int mantissa_bits) {
  const int exponent_bits = bits - 1 - mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int top = (1 << exponent_bits) - 1;
  const int exponent = static_cast<int>(pattern >> mantissa_bits) & top;
  const int mantissa = static_cast<int>(pattern & ((1u << mantissa_bits) - 1));
  const long double sign = (pattern >> (bits - 1) & 1) != 0 ? -1 : 1;
  if (exponent == top)
    return mantissa != 0 ? std::nanl("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign *
         std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

// Decodes the float8 types without infinity, which have other NaN patterns and biases.
inline long double FiniteFloat8(uint8_t pattern, int mantissa_bits, int bias,
                                bool is_nan) {
  if (is_nan) return std::nanl("");
  const int exponent = (pattern & 0x7f) >> mantissa_bits;
  const int mantissa = pattern & ((1 << mantissa_bits) - 1);
  const long double sign = pattern >= 0x80 ? -1 : 1;
  const int whole = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  return sign * std::ldexp(whole, std::max(exponent, 1) - bias - mantissa_bits);
}

// Decodes one element.
inline std::complex<long double> Value(DType dtype, const char* bytes) {
  const auto byte = static_cast<uint8_t>(*bytes);
  switch (dtype) {
    case DType::kBool:
      return byte != 0 ? 1 : 0;
    case DType::kUint8:
      return byte;
    case DType::kInt8:
      return Raw<int8_t>(bytes);
    case DType::kInt16:
      return Raw<int16_t>(bytes);
    case DType::kUint16:
      return Raw<uint16_t>(bytes);
    case DType::kInt32:
      return Raw<int32_t>(bytes);
    case DType::kUint32:
      return Raw<uint32_t>(bytes);
    case DType::kInt64:
      return static_cast<long double>(Raw<int64_t>(bytes));
    case DType::kUint64:
      return static_cast<long double>(Raw<uint64_t>(bytes));
    case DType::kFloat16:
      return Float(Raw<uint16_t>(bytes), 16, 10);
    case DType::kBfloat16:
      return Float(Raw<uint16_t>(bytes), 16, 7);
    case DType::kFloat32:
      return Raw<float>(bytes);
    case DType::kFloat64:
      return Raw<double>(bytes);
    case DType::kComplex32:
      return {Float(Raw<uint16_t>(bytes), 16, 10),
              Float(Raw<uint16_t>(bytes + 2), 16, 10)};
    case DType::kComplex64:
      return {Raw<float>(bytes), Raw<float>(bytes + 4)};
    case DType::kComplex128:
      return {Raw<double>(bytes), Raw<double>(bytes + 8)};
    case DType::kFloat8E4m3fn:
      return FiniteFloat8(byte, 3, 7, (byte & 0x7f) == 0x7f);
    case DType::kFloat8E5m2:
      return Float(byte, 8, 2);
    case DType::kFloat8E4m3fnuz:
      return FiniteFloat8(byte, 3, 8, byte == 0x80);
    case DType::kFloat8E5m2fnuz:
      return FiniteFloat8(byte, 2, 16, byte == 0x80);
  }
  return 0;
}

inline bool IsNan(std::complex<long double> v) {
  return std::isnan(v.real()) || std::isnan(v.imag());
}

struct PlainDifference {
  double max_abs = 0, difference_squares = 0, squares = 0;
  int64_t differing = 0, nan = 0, nan_in_first = 0, infinite_in_first = 0;
};

inline PlainDifference ComputeDifference(DType a_type, const std::string& a, DType b_type,
                                         const std::string& b) {
  PlainDifference plain;
  const int64_t count = static_cast<int64_t>(a.size()) / ElementSize(a_type);
  for (int64_t i = 0; i < count; ++i) {
    const auto x = Value(a_type, a.data() + i * ElementSize(a_type));
    const auto y = Value(b_type, b.data() + i * ElementSize(b_type));
    if (IsNan(x)) {
      ++plain.nan_in_first;
    } else {
      plain.infinite_in_first += std::isinf(x.real()) || std::isinf(x.imag());
      plain.squares += static_cast<double>(std::norm(x));
    }
    if (IsNan(x) || IsNan(y)) {
      plain.nan += IsNan(x) != IsNan(y);
    } else if (x != y) {
      ++plain.differing;
      const double re =
          static_cast<double>(x.real() == y.real() ? 0 : x.real() - y.real());
      const double im =
          static_cast<double>(x.imag() == y.imag() ? 0 : x.imag() - y.imag());
      const double d = std::hypot(re, im);
      plain.max_abs = std::max(plain.max_abs, d);
      plain.difference_squares += d * d;
    }
  }
  return plain;
}

// Random elements of moderate size, so that sums do not overflow, with some special
// values. Random bits would mostly give extreme values.
inline std::string Elements(DType dtype, int64_t count, std::mt19937_64& random) {
  std::string bytes(static_cast<size_t>(count * ElementSize(dtype)), '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  const auto put = [&](size_t at, auto value) {
    std::memcpy(&bytes[at], &value, sizeof(value));
  };
  const double infinity = std::numeric_limits<double>::infinity();
  std::normal_distribution<double> normal;
  const double special[] = {0.0, -0.0, infinity, -infinity,
                            std::numeric_limits<double>::quiet_NaN()};
  const auto number = [&] {
    return random() % 50 == 0 ? special[random() % 5] : normal(random);
  };
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(ElementSize(dtype))) {
    switch (dtype) {
      case DType::kBool:
        bytes[at] &= 1;
        break;
      case DType::kFloat64:
        put(at, number());
        break;
      case DType::kFloat32:
        put(at, static_cast<float>(number()));
        break;
      case DType::kComplex64:
        put(at, static_cast<float>(number()));
        put(at + 4, static_cast<float>(number()));
        break;
      case DType::kComplex128:
        put(at, number());
        put(at + 8, number());
        break;
      default:
        break;
    }
  }
  return bytes;
}

inline const std::vector<DType>& AllTypes() {
  static const std::vector<DType> all = [] {
    std::vector<DType> types;
    for (int number = 1; DTypeFromNumber(number).ok(); ++number) {
      types.push_back(*DTypeFromNumber(number));
    }
    return types;
  }();
  return all;
}

}  // namespace modelstore::support
