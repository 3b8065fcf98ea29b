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
inline constexpr int kMaxValueDepth = 64;
inline constexpr int kMaxDigestsPerCall = 65'536;
inline constexpr int kMaxContributions = 65'536;
inline constexpr int64_t kMaxAttachmentBytes = int64_t{16} << 20;
inline constexpr int64_t kMaxUnaryAnswerBytes = int64_t{4} << 20;
// Below this a save is one SaveCheckpoint stream and one sync.
inline constexpr int64_t kSmallSaveBytes = int64_t{1} << 20;

}  // namespace modelstore
