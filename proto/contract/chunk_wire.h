// Wire format of the messages with chunks: SaveCheckpointRequest, UploadChunksRequest and
// LoadCheckpointResponse. Their field `data` (15) is written and read here instead of in
// generated code, so that payloads are not copied into one buffer. All other fields use
// the generated message.
//
// Writing, with the payload in the caller's buffers:
//   std::string head = ChunkMessageHead(message, payload_bytes);
//   // send head, then exactly payload_bytes of payload
// Reading, from the fragments that the transport delivers:
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

// Returns the serialized `message`, whose `data` must be empty, followed by tag and
// length of a `data` field of `payload_bytes` bytes; without them if payload_bytes is 0.
std::string ChunkMessageHead(const google::protobuf::MessageLite& message,
                             size_t payload_bytes);

struct SplitMessage {
  // A copy of all fields except `data`, including unknown ones, in wire format and in the
  // order received.
  std::string head;
  // The payload of the last `data` field, as views into the given fragments.
  std::vector<absl::string_view> data;
  size_t data_bytes = 0;
};

// Fields may have any order and may span fragments. INVALID_ARGUMENT if the bytes are not
// a well-formed message, or the head exceeds `max_head_bytes`.
absl::StatusOr<SplitMessage> SplitChunkMessage(
    absl::Span<const absl::string_view> fragments, size_t max_head_bytes);

}  // namespace modelstore
