// Conversions of floating-point elements for the kernels of this folder: one struct per
// type. ToWide() is exact.
//
//   Target result = To::FromFloat(static_cast<float>(From::ToWide(element)));
//
// All conversions are branch-free, so that loops over them are vectorized.
#pragma once

#include <cstdint>
#include <cstring>

namespace modelstore::element {

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
    // Adds half a unit in the last place, minus one unless the last kept bit is odd: ties
    // round to even. A carry into the exponent is correct, also to infinity.
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
  }
};

struct Float16 {
  using Stored = uint16_t;
  [[gnu::always_inline]] static inline float ToWide(uint16_t v) {
    const uint32_t sign = static_cast<uint32_t>(v & 0x8000) << 16;
    const uint32_t magnitude = static_cast<uint32_t>(v & 0x7fff);
    // Exponent and mantissa at float32's positions. 112 is the difference of the biases;
    // it is added twice for infinity and NaN.
    const uint32_t shifted = magnitude << 13;
    const uint32_t normal = shifted + (112u << 23);
    const uint32_t special =
        (shifted + (224u << 23)) | (magnitude > 0x7c00 ? 0x00400000u : 0u);  // quiet
    // Adds a leading one of 2^-14 to a subnormal mantissa and subtracts it: the
    // subtraction normalizes the number.
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
    // Below 2^-14: the unit in the last place of 0.5 is 2^-24, so adding 0.5 rounds to
    // the spacing of float16's subnormals.
    const uint32_t subnormal = Bits(FromBits(magnitude) + 0.5f) - Bits(0.5f);
    uint32_t result = normal;
    result = magnitude < 0x38800000 ? subnormal : result;
    result = magnitude >= 0x477ff000 ? 0x7c00 : result;  // rounds beyond 65504
    result = magnitude > 0x7f800000 ? 0x7e00 : result;
    return static_cast<uint16_t>(sign | result);
  }
};

}  // namespace modelstore::element
