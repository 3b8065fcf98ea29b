
#include "server/core/request_codec.h"

#include <random>

#include "google/protobuf/stubs/logging.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/limits.h"
#include "server/core/page_token.h"
#include "server/transfer/chunk_message.h"
#include "tests/server/harness.h"
#include "tests/support/seed.h"

namespace modelstore::server {
namespace {

// A dict in a dict, and so on.
void MakeDeep(int levels, v1::Value* leaf) {
  for (int i = 1; i < levels; ++i) {
    leaf = leaf->mutable_dict_value()->add_entries()->mutable_value();
  }
  leaf->mutable_complex_value()->set_real(5);
}

// Python's protobuf refuses over 100 nested messages, and cannot be told otherwise.
TEST(WireTest, TheDeepestTreesParseWithProtobufsOwnLimit) {
  v1::SaveCheckpointRequest save;
  MakeDeep(kMaxValueDepth, save.mutable_manifest()->add_sections()->mutable_value());
  EXPECT_TRUE(v1::SaveCheckpointRequest().ParseFromString(save.SerializeAsString()));
  v1::ListCheckpointsResponse list;
  MakeDeep(kMaxValueDepth, list.add_checkpoints()->add_sections()->mutable_value());
  EXPECT_TRUE(v1::ListCheckpointsResponse().ParseFromString(list.SerializeAsString()));
  list.Clear();
  auto* module = list.add_checkpoints()->mutable_architecture()->mutable_root();
  for (int i = 1; i < kMaxModuleDepth; ++i) module = module->add_children();
  MakeDeep(kMaxArgumentDepth, module->add_arguments()->mutable_value());
  EXPECT_TRUE(v1::ListCheckpointsResponse().ParseFromString(list.SerializeAsString()));
}

TEST(WireTest, TreesOf64LevelsOfAnEarlierReleaseAreRead) {
  v1::Section section, parsed;
  MakeDeep(64, section.mutable_value());
  EXPECT_TRUE(ParseRequest(section.SerializeAsString(), &parsed).ok());
  EXPECT_EQ(parsed.SerializeAsString(), section.SerializeAsString());
}

TEST(WireTest, ABottomlessTreeIsRefused) {
  std::string bytes;
  for (int i = 0; i < 100'000; ++i) bytes += "\x12\x7f";
  v1::Section section;
  EXPECT_EQ(ParseRequest(bytes, &section).code(), absl::StatusCode::kInvalidArgument);
}

TEST(WireTest, RubbishIsRefusedByEveryMethod) {
  std::mt19937_64 random(TestSeed());
  Harness harness;
  auto* log = google::protobuf::SetLogHandler(nullptr);
  const char* methods[] = {"LoadCheckpoint", "CreateUpload", "FindMissingChunks"};
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = MakeBytes(random() % 200, static_cast<uint32_t>(random()));
    for (const char* method : methods) {
      const std::string name = std::string(kTransfer) + method;
      const bool unary = harness.service().Find(name) == MethodKind::kUnary;
      const absl::Status status =
          unary ? harness.service().Call(name, bytes).status()
                : harness.service().OpenOutbound(name, bytes).status();
      EXPECT_FALSE(status.ok());
    }
    for (const char* method : {"SaveCheckpoint", "UploadChunks"}) {
      auto session = harness.service().OpenInbound(std::string(kTransfer) + method);
      ASSERT_TRUE(session.ok());
      const absl::string_view view(bytes);
      if ((*session)->OnMessage({view}).ok()) {
        EXPECT_FALSE((*session)->OnEnd().ok());
      }
    }
  }
  google::protobuf::SetLogHandler(log);
}

TEST(PageTokenTest, ATokenIsValidOnlyInItsScope) {
  const std::string token = MakePageToken("list/a", "position");
  EXPECT_EQ(*ReadPageToken("list/a", token), "position");
  EXPECT_FALSE(ReadPageToken("list/b", token).ok());
  EXPECT_EQ(*ReadPageToken("list/a", ""), "");
  EXPECT_EQ(MakePageToken("list/a", ""), "");
  std::string changed = token;
  changed.back() = changed.back() == 'A' ? 'B' : 'A';
  EXPECT_FALSE(ReadPageToken("list/a", changed).ok());
  EXPECT_FALSE(ReadPageToken("list/a", std::string(1 << 20, 'A')).ok());
}

TEST(IncomingTest, ChunksAreCutOutOfFragmentsOfAnySize) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 200; ++round) {
    v1::UploadChunksRequest request;
    std::vector<std::string> chunks;
    for (size_t i = 0; i < random() % 6; ++i) {
      chunks.push_back(MakeBytes(1 + random() % 300, static_cast<uint32_t>(random())));
      AddChunk(&request, chunks.back());
    }
    const std::string bytes = request.SerializeAsString();
    std::vector<absl::string_view> fragments;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = std::min<size_t>(1 + random() % 50, bytes.size() - at);
      fragments.emplace_back(bytes.data() + at, size);
      at += size;
    }
    v1::UploadChunksRequest parsed;
    auto payload = ParseIncoming(fragments, &parsed);
    ASSERT_TRUE(payload.ok()) << payload.status();
    size_t seen = 0;
    auto status =
        ForEachChunk(parsed.chunks(), *payload, EmptyDigest::kRefused,
                     [&](const std::optional<Digest>& digest,
                         absl::Span<const absl::string_view> pieces) {
                       std::string joined;
                       for (const auto piece : pieces)
                         joined.append(piece.data(), piece.size());
                       EXPECT_EQ(joined, chunks[seen]);
                       EXPECT_EQ(std::string(digest->bytes()), DigestOf(chunks[seen]));
                       ++seen;
                       return absl::OkStatus();
                     });
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(seen, chunks.size());
  }
}

}  // namespace
}  // namespace modelstore::server
