#include "server/transfer/chunk_message.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/chunk_wire.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "server/core/request_codec.h"

namespace modelstore::server {

absl::StatusOr<IncomingPayload> ParseIncoming(
    absl::Span<const absl::string_view> fragments, google::protobuf::Message* message) {
  auto split = SplitChunkMessage(fragments, static_cast<size_t>(kMaxMessageBytes));
  if (!split.ok()) return split.status();
  if (auto s = ParseRequest(split->head, message); !s.ok()) return s;
  return IncomingPayload{std::move(split->data), split->data_bytes};
}

absl::Status ForEachChunk(
    const google::protobuf::RepeatedPtrField<v1::ChunkHeader>& chunks,
    const IncomingPayload& payload, EmptyDigest empty_digest, PutChunk put) {
  // All sizes are checked before the first `put`, so that the loop below cannot run past
  // the last fragment. The sum cannot overflow: the message limits the number of headers.
  size_t announced = 0;
  for (int i = 0; i < chunks.size(); ++i) {
    const int64_t size = chunks[i].size_bytes();
    if (size <= 0 || size > kMaxChunkBytes) {
      return InvalidField(absl::StrCat("chunks[", i, "].size_bytes"),
                          absl::StrCat("from 1 to ", kMaxChunkBytes, ", got ", size));
    }
    announced += static_cast<size_t>(size);
  }
  if (announced != payload.data_bytes) {
    return InvalidField("data", absl::StrCat("holds ", payload.data_bytes,
                                             " bytes, and chunks announce ", announced));
  }
  // Fragments end where gRPC's buffers end, not where chunks do: one chunk may span
  // several fragments and one fragment may hold several chunks.
  size_t fragment = 0;
  size_t offset = 0;  // in payload.data[fragment]
  std::vector<absl::string_view> bytes;
  for (int i = 0; i < chunks.size(); ++i) {
    bytes.clear();
    size_t missing = static_cast<size_t>(chunks[i].size_bytes());
    while (missing > 0) {
      const absl::string_view rest = payload.data[fragment].substr(offset);
      const size_t taken = std::min(missing, rest.size());
      if (taken > 0) bytes.push_back(rest.substr(0, taken));
      missing -= taken;
      offset += taken;
      if (taken == rest.size()) {
        ++fragment;
        offset = 0;
      }
    }
    std::optional<Digest> digest;
    if (!chunks[i].digest().empty() || empty_digest == EmptyDigest::kRefused) {
      auto given = Digest::FromBytes(DigestAlgorithm::kXxh3_128, chunks[i].digest());
      if (!given.ok()) {
        return InvalidField(absl::StrCat("chunks[", i, "].digest"),
                            given.status().message());
      }
      digest = *given;
    }
    if (auto s = put(digest, bytes); !s.ok()) {
      return Annotate(s, absl::StrCat("chunks[", i, "]"));
    }
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server
