// Size and digest of a chunk that has arrived.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/contract/digest.h"

namespace modelstore::storage {

// A received chunk, in the fragments that the network delivered. It owns neither the
// fragments nor the array that lists them: both must outlive it.
struct ReceivedChunk {
  absl::Span<const absl::string_view> fragments;
  int64_t bytes = 0;
  Digest digest;
  bool only_bools = false;  // HoldsOnlyBools() of its bytes
};

// Computes size and digest of a chunk. INVALID_ARGUMENT if it is empty, larger than
// kMaxChunkBytes, or its digest is not `expected`. Reads every byte; copies none.
absl::StatusOr<ReceivedChunk> CheckChunk(DigestAlgorithm algorithm,
                                         const std::optional<Digest>& expected,
                                         absl::Span<const absl::string_view> fragments);

}  // namespace modelstore::storage
