// Parsing of the messages that carry chunks (SaveCheckpoint, UploadChunks), without
// copying the chunks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/message.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/digest.h"

namespace modelstore::server {

// The `data` field of a message as views into the fragments that the message arrived in,
// in order. Valid only while these fragments are, which is one OnMessage() call.
struct IncomingPayload {
  std::vector<absl::string_view> data;
  size_t data_bytes = 0;  // total size of the views
};

// Parses everything but `data` into `message` and returns `data`. INVALID_ARGUMENT if the
// message is malformed, or if its other fields exceed kMaxMessageBytes.
absl::StatusOr<IncomingPayload> ParseIncoming(
    absl::Span<const absl::string_view> fragments, google::protobuf::Message* message);

// Receives one chunk. Its bytes are the concatenation of `fragments`. `digest` is absent
// if the client sent none.
using PutChunk = absl::FunctionRef<absl::Status(
    const std::optional<Digest>& digest, absl::Span<const absl::string_view> fragments)>;
// Whether a chunk may arrive without a digest. Only SaveCheckpoint allows it: its chunks
// can be matched to the manifest by order.
enum class EmptyDigest { kRefused, kAccepted };
// Checks that the sizes in `chunks` are valid and add up to the payload, then calls `put`
// for each chunk in order. INVALID_ARGUMENT with the field path if they do not. Stops at
// the first error of `put` and returns it with the index of the chunk; chunks before it
// were put.
absl::Status ForEachChunk(
    const google::protobuf::RepeatedPtrField<v1::ChunkHeader>& chunks,
    const IncomingPayload& payload, EmptyDigest empty_digest, PutChunk put);

}  // namespace modelstore::server
