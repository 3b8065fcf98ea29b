// Limits that both ends of the wire hold to; GetServerInfo tells them.
#pragma once

#include <cstdint>

namespace modelstore {

inline constexpr int64_t kMaxChunkBytes = int64_t{4} << 20;
// A chunk, its headers, and room for unknown fields.
inline constexpr int64_t kMaxMessageBytes = kMaxChunkBytes + (int64_t{1} << 20);
inline constexpr int64_t kMaxManifestMessageBytes = int64_t{1} << 20;
inline constexpr int64_t kMaxTensors = 262'144;
inline constexpr int64_t kMaxManifestBytes = int64_t{64} << 20;
// A listing names each of them with its version.
inline constexpr int kMaxSections = 1024;
inline constexpr int kMaxAttachments = 1024;
// A level of a dict takes three nested messages, and a tree lies in up to three more:
// 32 levels are within the 100 that protobuf accepts unless told otherwise.
inline constexpr int kMaxValueDepth = 32;
// Of an argument of a module, which lies below up to 64 modules.
inline constexpr int kMaxArgumentDepth = 8;
// Nested messages that both ends accept. Deeper than kMaxValueDepth needs, so that a
// tree that is too deep is refused by its place, and that one of 64 levels, stored by
// an earlier release, can be read.
inline constexpr int kMaxNestedMessages = 224;
// What Python's int() reads unless told otherwise.
inline constexpr int kMaxBigIntDigits = 4300;
inline constexpr int kMaxDigestsPerCall = 65'536;
inline constexpr int kMaxContributions = 65'536;
// Of one attachment, which is not cut and so fits in a message with room to spare.
inline constexpr int64_t kMaxAttachmentBytes = kMaxChunkBytes;
// Of all attachments of a checkpoint.
inline constexpr int64_t kMaxTotalAttachmentBytes = int64_t{16} << 20;
// Of every answer, unary or streamed, unless the request allows more: what gRPC's clients
// accept by default.
inline constexpr int64_t kMaxAnswerBytes = int64_t{4} << 20;
// Below this a save is one SaveCheckpoint stream and one sync.
inline constexpr int64_t kSmallSaveBytes = int64_t{1} << 20;

}  // namespace modelstore
