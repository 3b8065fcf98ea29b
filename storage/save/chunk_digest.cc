#include "storage/save/chunk_digest.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/numeric.h"

namespace modelstore::storage {

absl::StatusOr<ReceivedChunk> CheckChunk(DigestAlgorithm algorithm,
                                         const std::optional<Digest>& expected,
                                         absl::Span<const absl::string_view> fragments) {
  ReceivedChunk chunk{fragments, 0, {}};
  for (const absl::string_view fragment : fragments) {
    chunk.bytes += static_cast<int64_t>(fragment.size());
  }
  if (chunk.bytes == 0 || chunk.bytes > kMaxChunkBytes) {
    return InvalidField("chunks.size_bytes", absl::StrCat("must be 1 to ", kMaxChunkBytes,
                                                          ", is ", chunk.bytes));
  }
  if (fragments.size() == 1) {
    chunk.digest = ComputeDigest(algorithm, fragments[0]);
  } else {
    Digester digester(algorithm);
    for (const absl::string_view fragment : fragments) digester.Update(fragment);
    chunk.digest = digester.Finish();
  }
  if (expected.has_value() && !(chunk.digest == *expected)) {
    return InvalidField(
        "chunks.digest",
        absl::StrCat("is ", expected->ToHex(), ", but the bytes have ",
                     chunk.digest.ToHex(), ": they were changed on the way"));
  }
  chunk.only_bools = std::all_of(fragments.begin(), fragments.end(), HoldsOnlyBools);
  return chunk;
}

}  // namespace modelstore::storage
