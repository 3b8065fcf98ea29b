// The wire form of the messages that carry chunks: SaveCheckpointRequest,
// UploadChunksRequest and LoadCheckpointResponse. Their field `data` (15) is
// written and read here, outside generated code, so that payloads are neither
// gathered nor copied; all other fields pass through the generated message.
//
// Writing, with the payload as buffers of the caller's:
//   std::string head = ChunkMessageHead(message, payload_bytes);
//   // send head, then exactly payload_bytes of payload
// Reading, from whatever pieces the transport delivers:
//   absl::StatusOr<SplitMessage> split = SplitChunkMessage(fragments);
//   message.ParseFromString(split->head);  // use split->data
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"

namespace modelstore {

inline constexpr int kChunkDataField = 15;

// The serialized `message` (whose `data` must be empty) followed by tag and
// length of a `data` of `payload_bytes`; without them if payload_bytes is 0.
std::string ChunkMessageHead(const google::protobuf::MessageLite& message,
                             size_t payload_bytes);

struct SplitMessage {
  // Every field but `data`, in wire format, in order of arrival, unknown fields
  // included. At most a MiB or so: copied.
  std::string head;
  // The payload of the last `data` field: views into the fragments given.
  std::vector<absl::string_view> data;
  size_t data_bytes = 0;
};

// Fields may come in any order and cross fragments anywhere. InvalidArgument if
// the bytes are not a well-formed message, or the head exceeds max_head_bytes.
absl::StatusOr<SplitMessage> SplitChunkMessage(
    absl::Span<const absl::string_view> fragments, size_t max_head_bytes);

}  // namespace modelstore
