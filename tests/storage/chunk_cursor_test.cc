// The chunks of a stored tensor in the order of its bytes.
#include "storage/api/chunk_cursor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "tests/storage/store_fixture.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

using support::RandomBytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// More than 1 MiB in all, so that the chunks make a pack of their own.
constexpr int64_t kRowBytes = 200'000;

class ChunkCursorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fixture_.options().pack_bytes = 64 << 20;
    fixture_.options().second_pack_bytes = 64 << 20;
    ASSERT_OK(fixture_.Reopen());
  }
  CheckpointStore& store() { return fixture_.store(); }

  // Version 1: "w" of 8 rows, of which one worker saved the last five and another the
  // first three.
  void SaveInTwoPieces() {
    const TestTensor top{"w", {8, kRowBytes}, bytes_.substr(0, 3 * kRowBytes), 0, 3};
    const TestTensor bottom{"w", {8, kRowBytes}, bytes_.substr(3 * kRowBytes), 3, 5};
    const auto record = store().uploads().Create(RequestOf({}), 2, {});
    ASSERT_OK(record.status());
    const auto upload = store().uploads().Open("m", record->upload_id());
    ASSERT_OK(upload.status());
    ASSERT_OK(PutAll(**(*upload)->OpenSink(), ChunksOf({top, bottom})));
    ASSERT_OK((*upload)->AddManifest(0, PartOf({bottom}), true, true));
    ASSERT_OK((*upload)->AddManifest(1, PartOf({top}), true, true));
    ASSERT_OK((*upload)->Commit({}).status());
  }
  // A cursor at the begin of a tensor of a version.
  ChunkCursor Open(int64_t version, int tensor) {
    auto read = store().reads().Open("m", version);
    EXPECT_OK(read.status());
    auto cursor = ChunkCursor::Open(*std::move(read), tensor);
    EXPECT_OK(cursor.status());
    return *std::move(cursor);
  }
  // Damages the chunk that the cursor is at.
  void Damage(const ChunkCursor& cursor) {
    ASSERT_TRUE(fixture_.disk().FlipBit(absl::Uint128High64(cursor.stored_id()),
                                        absl::Uint128Low64(cursor.stored_id()), 5));
  }

  const std::string bytes_ = RandomBytes(1, 8 * kRowBytes);
  StoreFixture fixture_;
};

TEST_F(ChunkCursorTest, TheBytesComeInOrderWhateverPiecesTheTensorIsCutInto) {
  SaveInTwoPieces();
  ChunkCursor cursor = Open(1, 0);
  EXPECT_EQ(cursor.size_bytes(), 8 * kRowBytes);
  std::string read;
  std::vector<int64_t> begins;
  while (!cursor.done()) {
    begins.push_back(cursor.position());
    EXPECT_EQ(cursor.chunk_begin(), cursor.position());
    const auto bytes = cursor.Peek();
    ASSERT_OK(bytes.status());
    read.append(bytes->data(), bytes->size());
    cursor.Advance(static_cast<int64_t>(bytes->size()));
  }
  EXPECT_EQ(read, bytes_);
  // The first piece's last chunk ends with the piece.
  std::vector<int64_t> expected;
  for (int64_t at = 0; at < 3 * kRowBytes; at += kTestChunk) expected.push_back(at);
  for (int64_t at = 3 * kRowBytes; at < 8 * kRowBytes; at += kTestChunk) {
    expected.push_back(at);
  }
  EXPECT_EQ(begins, expected);
}

TEST_F(ChunkCursorTest, ASeekReadsNothingButTheChunkThereAndFromThePositionOn) {
  SaveInTwoPieces();
  constexpr int64_t kPosition = 3 * kRowBytes + 2 * kTestChunk + 17;
  for (ChunkCursor other = Open(1, 0); !other.done(); other.NextChunk()) {
    if (other.chunk_begin() != kPosition - 17) Damage(other);
  }
  ChunkCursor cursor = Open(1, 0);
  cursor.Seek(kPosition);
  EXPECT_EQ(cursor.chunk_begin(), kPosition - 17);
  EXPECT_EQ(cursor.chunk_bytes(), kTestChunk);
  const auto bytes = cursor.Peek();
  ASSERT_OK(bytes.status());
  EXPECT_EQ(*bytes, bytes_.substr(kPosition, kTestChunk - 17));
  const auto chunk = cursor.ReadChunk();
  ASSERT_OK(chunk.status());
  EXPECT_EQ(chunk->view(), bytes_.substr(kPosition - 17, kTestChunk));
  EXPECT_EQ(cursor.digest(), DigestOf(std::string(chunk->view())).bytes());
}

TEST_F(ChunkCursorTest, ADamagedChunkIsADataLossThatNamesTheTensor) {
  SaveInTwoPieces();
  ChunkCursor cursor = Open(1, 0);
  cursor.NextChunk();
  Damage(cursor);
  for (const absl::Status& status :
       {cursor.ReadChunk().status(), cursor.HoldChunk().status(),
        cursor.Peek().status()}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("model:w of models/m/checkpoints/1"));
  }
  cursor.NextChunk();
  EXPECT_OK(cursor.Peek().status());
}

TEST_F(ChunkCursorTest, AHeldChunkIsKeptUntilTheCursorLeavesItOrReleasesIt) {
  SaveInTwoPieces();
  ChunkCursor cursor = Open(1, 0);
  auto held = cursor.HoldChunk();
  ASSERT_OK(held.status());
  cursor.Advance(100);
  EXPECT_EQ(*cursor.HoldChunk(), *held);
  std::weak_ptr<PinnedBytes> weak = *held;
  held = std::shared_ptr<PinnedBytes>();
  EXPECT_FALSE(weak.expired());
  cursor.NextChunk();
  EXPECT_TRUE(weak.expired());
  weak = *cursor.HoldChunk();
  EXPECT_FALSE(weak.expired());
  cursor.Release();
  EXPECT_TRUE(weak.expired());
  EXPECT_OK(cursor.Peek().status());
}

TEST_F(ChunkCursorTest, ACopyMovesByItself) {
  SaveInTwoPieces();
  ChunkCursor cursor = Open(1, 0);
  ASSERT_OK(cursor.Peek().status());
  ChunkCursor copy = cursor;
  copy.Seek(copy.size_bytes());
  EXPECT_TRUE(copy.done());
  EXPECT_EQ(cursor.position(), 0);
  EXPECT_EQ(cursor.Peek()->substr(0, 100), bytes_.substr(0, 100));
  copy.Seek(3 * kRowBytes);
  EXPECT_EQ(copy.Peek()->substr(0, 100), bytes_.substr(3 * kRowBytes, 100));
}

TEST_F(ChunkCursorTest, AnEmptyTensorIsDoneAtOnceAndATiedOneHasNoBytesOfItsOwn) {
  auto save = store().saves().StartOneShot(RequestOf({}));
  ASSERT_OK(save.status());
  ManifestPart part = PartOf({Vector("w", "1234"), Vector("empty", "")});
  auto& tied = *part.add_tensors();
  tied = part.tensors(0);
  tied.set_key("tied");
  tied.set_tied_to("model:w");
  tied.clear_pieces();
  ASSERT_OK((*save)->AddManifest(part));
  const absl::string_view chunk = "1234";
  ASSERT_OK((*save)->Put(DigestOf("1234"), {&chunk, 1}));
  ASSERT_OK((*save)->Commit({}).status());
  const auto read = store().reads().Open("m", 1);
  ASSERT_OK(read.status());
  std::vector<std::string> found;
  for (int t = 0; t < (*read)->manifest().tensors_size(); ++t) {
    const std::string& key = (*read)->manifest().tensors(t).key();
    const auto cursor = ChunkCursor::Open(*read, t);
    if (key == "tied") {
      EXPECT_TRUE(absl::IsDataLoss(cursor.status())) << cursor.status();
      EXPECT_THAT(std::string(cursor.status().message()), HasSubstr("model:tied"));
    } else {
      ASSERT_OK(cursor.status());
      EXPECT_EQ(cursor->done(), key == "empty") << key;
    }
    found.push_back(key);
  }
  EXPECT_THAT(found, UnorderedElementsAre("w", "empty", "tied"));
}

TEST_F(ChunkCursorTest, ChunksThatVersionsShareHaveOneStoredId) {
  const TestContent first = RandomContent(1, 1, 3 * kTestChunk);
  TestContent second = first;
  second[0].bytes[kTestChunk] ^= 1;  // of the second chunk
  ASSERT_OK(SaveOneShot(store(), first).status());
  ASSERT_OK(SaveOneShot(store(), second).status());
  std::vector<bool> shared;
  ChunkCursor a = Open(1, 0), b = Open(2, 0);
  for (; !a.done(); a.NextChunk(), b.NextChunk()) {
    shared.push_back(a.stored_id() == b.stored_id());
    EXPECT_EQ(a.digest() == b.digest(), shared.back());
  }
  EXPECT_THAT(shared, ElementsAre(true, false, true));
}

}  // namespace
}  // namespace modelstore::storage
