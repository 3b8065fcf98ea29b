#include "storage/chunk_gatherer.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"

namespace modelstore::storage {
namespace {

// Copied, then digested while still in the second-level cache.
constexpr size_t kStep = size_t{128} << 10;

}  // namespace

GatheredChunk::~GatheredChunk() {
  if (buffer_ != nullptr) pool_->Give(std::move(buffer_));
}

absl::Status GatheredChunk::Gather(DigestAlgorithm algorithm,
                                   const std::optional<Digest>& expected,
                                   absl::Span<const absl::string_view> fragments) {
  size_t total = 0, filled = 0, pieces = 0;
  for (absl::string_view fragment : fragments) {
    total += fragment.size();
    if (!fragment.empty()) {
      bytes_ = fragment;
      ++pieces;
    }
  }
  if (total == 0 || total > static_cast<size_t>(kMaxChunkBytes)) {
    return InvalidField("chunks.size_bytes",
                        absl::StrCat("must be 1 to ", kMaxChunkBytes, ", is ", total));
  }
  if (pieces == 1) {
    digest_ = ComputeDigest(algorithm, bytes_);
  } else {
    buffer_ = pool_->Take();
    if (buffer_ == nullptr) {
      return absl::ResourceExhaustedError("there is no memory for a chunk: retry later");
    }
    Digester digester(algorithm);
    size_t digested = 0;
    for (absl::string_view fragment : fragments) {
      while (!fragment.empty()) {
        const size_t step = std::min(fragment.size(), kStep);
        std::memcpy(buffer_.get() + filled, fragment.data(), step);
        fragment.remove_prefix(step);
        filled += step;
        if (filled - digested >= kStep || filled == total) {
          digester.Update({buffer_.get() + digested, filled - digested});
          digested = filled;
        }
      }
    }
    digest_ = digester.Finish();
    bytes_ = {buffer_.get(), total};
  }
  if (expected.has_value() && !(digest_ == *expected)) {
    return InvalidField("chunks.digest",
                        absl::StrCat("is ", expected->ToHex(), ", but the bytes have ",
                                     digest_.ToHex(), ": they were changed on the way"));
  }
  return absl::OkStatus();
}

}  // namespace modelstore::storage
