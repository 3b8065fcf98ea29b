// Chunk messages, in fragments cut anywhere: what protobuf accepts is accepted with the
// same content, everything else is refused, and chunks arrive byte for byte.
//
// The first byte of an input says how it is cut, the second how large a head may be (0:
// as large as it likes); the rest is the message.
#include <algorithm>

#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/chunk_wire.h"
#include "server/transfer/chunk_message.h"
#include "tests/fuzz/targets.h"

namespace modelstore::fuzz {
namespace {

constexpr size_t kMaxHead = 1 << 20;

template <typename Message>
std::vector<std::string> Seeds() {
  std::vector<std::string> messages = {""};
  for (const size_t size : {0, 3, 40, 127, 128, 300}) {
    Message message;
    for (int i = 0; i < 3; ++i) {
      message.add_chunks()->set_size_bytes(static_cast<int64_t>(size / 3));
      message.mutable_chunks(i)->set_digest(std::string(16, static_cast<char>('a' + i)));
    }
    message.set_data(std::string(size / 3 * 3, 'x'));
    messages.push_back(message.SerializeAsString());
    auto* unknown = message.GetReflection()->MutableUnknownFields(&message);
    unknown->AddFixed32(900, 1);
    unknown->AddFixed64(901, 2);
    unknown->AddLengthDelimited(16, "text");
    auto* group = unknown->AddGroup(902);
    group->AddVarint(1, ~uint64_t{0});
    group->AddGroup(2)->AddLengthDelimited(kChunkDataField, "not data");
    messages.push_back(message.SerializeAsString());
    // `data` twice: the last one counts.
    messages.push_back(messages.back() + messages[1]);
  }
  std::vector<std::string> seeds;
  for (size_t i = 0; i < messages.size(); ++i) {
    seeds.push_back(std::string{static_cast<char>(i * 37), '\0'} + messages[i]);
  }
  return seeds;
}

// Fragments of up to 256 bytes, some of them empty.
std::vector<absl::string_view> Cut(absl::string_view bytes, uint8_t how) {
  std::vector<absl::string_view> fragments;
  const uint32_t largest = 1u << (how % 9);
  uint32_t state = how;
  while (!bytes.empty()) {
    state = state * 1664525 + 1013904223;
    fragments.push_back(bytes.substr(0, (state >> 8) % (largest + 1)));
    bytes.remove_prefix(fragments.back().size());
  }
  return fragments;
}

std::string Join(const std::vector<absl::string_view>& fragments) {
  std::string joined;
  for (absl::string_view fragment : fragments) {
    joined.append(fragment.data(), fragment.size());
  }
  return joined;
}

template <typename Message>
bool RunSplit(absl::string_view input) {
  if (input.size() < 2) return false;
  const absl::string_view bytes = input.substr(2);
  const auto fragments = Cut(bytes, static_cast<uint8_t>(input[0]));
  const auto limit = static_cast<uint8_t>(input[1]);
  const auto split = SplitChunkMessage(fragments, limit == 0 ? kMaxHead : limit);
  if (limit != 0) {
    if (split.ok()) FUZZ_REQUIRE(split->head.size() <= limit);
    return split.ok();
  }
  Message expected, read;
  const bool parses =
      expected.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  const bool ours = split.ok() && read.ParseFromString(split->head);
  FUZZ_REQUIRE(ours == parses);
  if (!ours) return false;
  const std::string data = Join(split->data);
  FUZZ_REQUIRE(data.size() == split->data_bytes);
  read.set_data(data);
  FUZZ_REQUIRE(read.SerializeAsString() == expected.SerializeAsString());
  return true;
}

// As a session of the server reads it, down to single chunks.
bool RunChunks(absl::string_view input) {
  if (input.size() < 2) return false;
  const auto fragments = Cut(input.substr(2), static_cast<uint8_t>(input[0]));
  v1::UploadChunksRequest message;
  const auto payload = server::ParseIncoming(fragments, &message);
  if (!payload.ok()) {
    FUZZ_REQUIRE(payload.status().code() == absl::StatusCode::kInvalidArgument);
    return false;
  }
  std::string taken;
  const absl::Status status = server::ForEachChunk(
      message.chunks(), *payload, server::EmptyDigest::kAccepted,
      [&taken](const std::optional<Digest>&, absl::Span<const absl::string_view> chunk) {
        taken += Join({chunk.begin(), chunk.end()});
        return absl::OkStatus();
      });
  if (!status.ok()) {
    RequireRefusal(status, "");
    return false;
  }
  FUZZ_REQUIRE(taken == Join(payload->data));
  return true;
}

}  // namespace

std::vector<Target> ChunkMessageTargets() {
  return {{"chunks", Seeds<v1::UploadChunksRequest>, RunChunks},
          {"load_message", Seeds<v1::LoadCheckpointResponse>,
           RunSplit<v1::LoadCheckpointResponse>},
          {"save_message", Seeds<v1::SaveCheckpointRequest>,
           RunSplit<v1::SaveCheckpointRequest>},
          {"upload_message", Seeds<v1::UploadChunksRequest>,
           RunSplit<v1::UploadChunksRequest>}};
}

}  // namespace modelstore::fuzz
