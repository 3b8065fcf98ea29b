// Contents for tests.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace modelstore::storage {

// Bytes that differ from seed to seed.
inline std::string TestBytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random() >> 32);
  return bytes;
}

}  // namespace modelstore::storage
