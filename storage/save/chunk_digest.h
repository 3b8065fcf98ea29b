// Size and digest of a chunk that has arrived.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/contract/digest.h"

namespace modelstore::storage {

// A chunk in fragments, as the network delivered it. They are the caller's, and so is
// the array that lists them: both must outlive this.
struct ReceivedChunk {
  absl::Span<const absl::string_view> fragments;
  int64_t bytes = 0;
  Digest digest;
  bool only_bools = false;  // HoldsOnlyBools() of its bytes
};

// INVALID_ARGUMENT if the chunk is empty, too large, or not what `expected` says.
absl::StatusOr<ReceivedChunk> CheckChunk(DigestAlgorithm algorithm,
                                         const std::optional<Digest>& expected,
                                         absl::Span<const absl::string_view> fragments);

}  // namespace modelstore::storage
