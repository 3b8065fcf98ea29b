// Makes one contiguous, digested chunk of the fragments that the network
// delivered, in one pass through the cache.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/contract/digest.h"
#include "storage/core.h"

namespace modelstore::storage {

// One chunk; holds a buffer of the pool while it lives, unless the chunk came in
// one fragment, which is then used where it lies.
class GatheredChunk {
 public:
  explicit GatheredChunk(BufferPool* pool) : pool_(pool) {}
  ~GatheredChunk();
  GatheredChunk(const GatheredChunk&) = delete;
  GatheredChunk& operator=(const GatheredChunk&) = delete;

  // INVALID_ARGUMENT if the chunk is empty, too large, or not what `expected`
  // says.
  absl::Status Gather(DigestAlgorithm algorithm, const std::optional<Digest>& expected,
                      absl::Span<const absl::string_view> fragments);

  const Digest& digest() const { return digest_; }
  absl::string_view bytes() const { return bytes_; }

 private:
  BufferPool* const pool_;
  BufferPool::Buffer buffer_{nullptr, nullptr};
  Digest digest_;
  absl::string_view bytes_;
};

}  // namespace modelstore::storage
