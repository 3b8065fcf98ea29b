// Limits that client and server enforce. GetServerInfo returns them.
#pragma once

#include <cstdint>

namespace modelstore {

inline constexpr int64_t kMaxChunkBytes = int64_t{4} << 20;
// A chunk, its headers, and space for unknown fields.
inline constexpr int64_t kMaxMessageBytes = kMaxChunkBytes + (int64_t{1} << 20);
inline constexpr int64_t kMaxManifestMessageBytes = int64_t{1} << 20;
inline constexpr int64_t kMaxTensors = 262'144;
inline constexpr int64_t kMaxManifestBytes = int64_t{64} << 20;
// Limited because listings contain them for every version.
inline constexpr int kMaxSections = 1024;
inline constexpr int kMaxAttachments = 1024;
// A level of a dict takes three nested messages, and a tree is inside up to three more,
// so 32 levels are within protobuf's default limit of 100.
inline constexpr int kMaxValueDepth = 32;
// Depth of an argument of a module, which is itself inside up to 64 modules.
inline constexpr int kMaxArgumentDepth = 8;
// Nested messages that both ends parse. More than kMaxValueDepth needs, so that the error
// for a tree that is too deep can name its path, and so that trees of 64 levels, stored
// by an earlier version, can be read.
inline constexpr int kMaxNestedMessages = 224;
// The default limit of Python's int().
inline constexpr int kMaxBigIntDigits = 4300;
inline constexpr int kMaxDigestsPerCall = 65'536;
inline constexpr int kMaxContributions = 65'536;
// Of one attachment, which is not cut and so fits in a message with room to spare.
inline constexpr int64_t kMaxAttachmentBytes = kMaxChunkBytes;
// Of all attachments of a checkpoint.
inline constexpr int64_t kMaxTotalAttachmentBytes = int64_t{16} << 20;
// Maximum size of a response message, unary or streamed, unless the request allows more:
// the default limit of gRPC clients.
inline constexpr int64_t kMaxAnswerBytes = int64_t{4} << 20;
// A smaller save is one SaveCheckpoint stream and one sync.
inline constexpr int64_t kSmallSaveBytes = int64_t{1} << 20;

}  // namespace modelstore
