// What the sessions that take chunks have in common: reading one message, and
// the limits of a manifest.
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

// A message with its payload beside it: views into the fragments it came in.
struct IncomingPayload {
  std::vector<absl::string_view> data;
  size_t data_bytes = 0;
};

// Parses `message` without its `data`.
absl::StatusOr<IncomingPayload> ParseIncoming(
    absl::Span<const absl::string_view> fragments, google::protobuf::Message* message);

// Calls `put` for each announced chunk with its bytes, in order, after checking
// that the chunks fill the payload.
using PutChunk = absl::FunctionRef<absl::Status(
    const std::optional<Digest>& digest, absl::Span<const absl::string_view> fragments)>;
enum class EmptyDigest { kRefused, kAccepted };
absl::Status ForEachChunk(
    const google::protobuf::RepeatedPtrField<v1::ChunkHeader>& chunks,
    const IncomingPayload& payload, EmptyDigest empty_digest, PutChunk put);

}  // namespace modelstore::server
