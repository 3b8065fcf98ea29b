// Random ids, unique without a stored counter. Not secret: the generator is not
// cryptographic.
#pragma once

#include <cstdint>
#include <string>

#include "absl/random/random.h"
#include "absl/strings/str_format.h"

namespace modelstore::storage {

inline uint64_t RandomNumber() {
  thread_local absl::BitGen generator;
  return absl::Uniform<uint64_t>(generator);
}

// 128 bits in 32 hex digits.
inline std::string RandomHexId() {
  return absl::StrFormat("%016x%016x", RandomNumber(), RandomNumber());
}

}  // namespace modelstore::storage
