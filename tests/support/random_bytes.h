// Pseudorandom bytes from a seed.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>

namespace modelstore::support {

inline std::string RandomBytes(uint64_t seed, size_t size) {
  std::string bytes(size, '\0');
  std::mt19937_64 random(seed * 0x9E3779B97F4A7C15u + 1);
  for (size_t i = 0; i + 8 <= size; i += 8) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, 8);
  }
  const uint64_t last = random();
  std::memcpy(bytes.data() + size / 8 * 8, &last, size % 8);
  return bytes;
}

}  // namespace modelstore::support
