// Damage is not inherited: once a read has found a chunk damaged or gone, no save
// shares it, and the next save of the same bytes is whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "absl/time/clock.h"
#include "proto/contract/dtype.h"
#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kBytes = 12 * kTestChunk;  // of a tensor

// One stream, with the chunks that the latest version lacks, or with all and without
// digests.
absl::StatusOr<records::CheckpointRecord> SaveInOneStream(CheckpointStore& store,
                                                          const TestContent& content,
                                                          bool digests) {
  auto save = store.saves().StartOneShot(RequestOf({}));
  if (!save.ok()) return save.status();
  if (auto s = (*save)->AddManifest(PartOf(content, digests)); !s.ok()) return s;
  const std::vector<std::string> chunks = ChunksOf(content);
  std::vector<uint32_t> sent(chunks.size());
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<uint32_t>(i);
  if (digests) {
    const auto latest = store.checkpoints().Get("m", {});
    if (!latest.ok()) return latest.status();
    auto missing = store.saves().FindMissing(*latest, DigestsOf(chunks));
    if (!missing.ok()) return missing.status();
    sent = *std::move(missing);
  }
  for (uint32_t i : sent) {
    std::optional<Digest> digest;
    if (digests) digest = DigestOf(chunks[i]);
    if (auto s = (*save)->Put(digest, {chunks[i]}); !s.ok()) return s;
  }
  return (*save)->Commit({});
}

struct Saver {
  const char* name;
  std::function<absl::StatusOr<records::CheckpointRecord>(CheckpointStore&,
                                                          const TestContent&)>
      save;
};

class DamageTest : public ::testing::Test {
 protected:
  CheckpointStore& store() { return fixture_.store(); }
  Uploads& uploads() { return store().uploads(); }
  Saves& saves() { return store().saves(); }

  void SetUp() override {
    // All in one pack.
    fixture_.options().pack_bytes = 64 << 20;
    fixture_.options().second_pack_bytes = 64 << 20;
    ASSERT_OK(fixture_.Reopen());
    ASSERT_OK(SaveByUpload(store(), content_).status());
  }
  ChunkId PlaceOf(int64_t version, int tensor, int chunk) {
    const auto read = store().reads().Open("m", version);
    EXPECT_OK(read.status());
    const auto& piece = (*read)->manifest().tensors(tensor).pieces(0);
    return {piece.packs(chunk), piece.sequences(chunk)};
  }
  // Inverts a bit of a chunk; twice, it is whole again.
  void Flip(int64_t version, int tensor, int chunk) {
    const ChunkId place = PlaceOf(version, tensor, chunk);
    ASSERT_TRUE(fixture_.disk().FlipBit(place.pack, place.sequence, 77));
  }
  void ExpectDamaged(int64_t version) {
    EXPECT_TRUE(absl::IsDataLoss(LoadAll(store(), version).status())) << version;
  }
  void ExpectDamaged(int64_t version, int tensor, int chunk) {
    const auto read = store().reads().Open("m", version);
    EXPECT_TRUE(absl::IsDataLoss((*read)->ReadChunk(tensor, 0, chunk).status()));
  }
  void ExpectWhole(int64_t version) {
    const auto loaded = LoadAll(store(), version);
    ASSERT_OK(loaded.status());
    EXPECT_EQ(*loaded, Expected(content_));
  }
  int64_t Damaged() { return store().maintenance().Stats()->damaged_chunks; }
  std::vector<uint32_t> MissingIn(int64_t version) {
    const auto record = store().checkpoints().Get("m", version);
    const auto missing = saves().FindMissing(*record, DigestsOf(ChunksOf(content_)));
    EXPECT_OK(missing.status());
    return *missing;
  }

  const TestContent content_ = RandomContent(1, 2, kBytes);
  StoreFixture fixture_;
};

class DamagedBaseTest : public DamageTest,
                        public ::testing::WithParamInterface<std::tuple<Saver, bool>> {};

TEST_P(DamagedBaseTest, TheNextSaveOfTheSameTensorsIsWhole) {
  const auto& [saver, restarts] = GetParam();
  Flip(1, 0, 3);
  Flip(1, 1, 11);
  // A load stops at the first; each is found by itself, as by a verification.
  ExpectDamaged(1, 0, 3);
  ExpectDamaged(1, 1, 11);
  EXPECT_EQ(Damaged(), 2);
  if (restarts) {
    fixture_.Close();
    fixture_.disk().LosePower();
    ASSERT_OK(fixture_.Reopen());
    EXPECT_EQ(Damaged(), 2);
  }
  EXPECT_THAT(MissingIn(1), ElementsAre(3, 23));

  const auto reopened = saver.save(store(), content_);
  ASSERT_OK(reopened.status());
  EXPECT_EQ(reopened->version(), 2);
  EXPECT_EQ(reopened->stored_bytes(), 2 * kTestChunk);
  EXPECT_EQ(reopened->damaged_base_bytes(), 2 * kTestChunk);
  ExpectWhole(2);
  // The lineage is whole again, and shares.
  const auto next = saver.save(store(), content_);
  ASSERT_OK(next.status());
  EXPECT_EQ(next->stored_bytes(), 0);
  EXPECT_EQ(next->damaged_base_bytes(), 0);
  ExpectWhole(3);
  ASSERT_OK(fixture_.Reopen());
  ExpectWhole(3);
}

INSTANTIATE_TEST_SUITE_P(
    Saves, DamagedBaseTest,
    ::testing::Combine(
        ::testing::Values(Saver{"Upload",
                                [](CheckpointStore& store, const TestContent& content) {
                                  return SaveByUpload(store, content);
                                }},
                          Saver{"OneStreamWithDigests",
                                [](CheckpointStore& store, const TestContent& content) {
                                  return SaveInOneStream(store, content, true);
                                }},
                          Saver{"OneStreamWithoutDigests",
                                [](CheckpointStore& store, const TestContent& content) {
                                  return SaveInOneStream(store, content, false);
                                }}),
        ::testing::Bool()),
    [](const auto& info) {
      return std::string(std::get<0>(info.param).name) +
             (std::get<1>(info.param) ? "AfterAPowerLoss" : "");
    });

TEST_F(DamageTest, AnOpenUploadSendsTheChunkToo) {
  const auto upload = uploads().Create(RequestOf({}), 1, {});
  const std::string id = upload->upload_id();
  const std::vector<std::string> chunks = ChunksOf(content_);
  EXPECT_THAT(*NamedUpload(uploads(), "m", id).FindMissing(DigestsOf(chunks)), IsEmpty());
  ASSERT_OK(NamedUpload(uploads(), "m", id).AddManifest(0, PartOf(content_), true, true));
  Flip(1, 0, 3);
  ExpectDamaged(1);
  const auto refused = NamedUpload(uploads(), "m", id).Commit({});
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("model:t0 (1 chunk)"));
  EXPECT_THAT(*NamedUpload(uploads(), "m", id).FindMissing(DigestsOf(chunks)),
              ElementsAre(3));
  auto sink = NamedUpload(uploads(), "m", id).OpenSink();
  ASSERT_OK(PutAll(**sink, {chunks[3]}));
  ASSERT_OK(NamedUpload(uploads(), "m", id).Commit({}).status());
  ExpectWhole(2);
}

TEST_F(DamageTest, ADerivedVersionIsNotMadeOfDamagedChunks) {
  Flip(1, 0, 3);
  ExpectDamaged(1);
  const auto copied = Copy(store(), 1);
  EXPECT_TRUE(absl::IsDataLoss(copied.status())) << copied.status();
  EXPECT_THAT(std::string(copied.status().message()), HasSubstr("model:t0 (1 chunk)"));
  EXPECT_TRUE(absl::IsNotFound(store().checkpoints().Get("m", 2).status()));
  // Without the tensor, or with another source that has it whole, it is made.
  const auto damaged = store().reads().Open("m", 1);
  auto without = saves().StartDerived(RequestOf({}), {*damaged});
  ASSERT_OK((*without)->Commit(PartOf({content_[1]}), {}).status());
  EXPECT_EQ(*LoadAll(store(), 2), Expected({content_[1]}));
  ASSERT_OK(SaveByUpload(store(), content_, {.no_base = true}).status());
  const auto whole = store().reads().Open("m", 3);
  auto mixed = saves().StartDerived(RequestOf({}), {*damaged, *whole});
  ASSERT_OK((*mixed)->Commit((*damaged)->manifest(), {}).status());
  ExpectWhole(4);
}

TEST_F(DamageTest, AChunkThatIsReadWellAgainIsShared) {
  Flip(1, 0, 3);
  ExpectDamaged(1);
  EXPECT_EQ(Damaged(), 1);
  Flip(1, 0, 3);
  ExpectWhole(1);
  for (const bool restarted : {false, true}) {
    if (restarted) {
      ASSERT_OK(fixture_.Reopen());
    }
    EXPECT_EQ(Damaged(), 0);
    EXPECT_THAT(MissingIn(1), IsEmpty());
  }
  EXPECT_EQ(SaveByUpload(store(), content_)->stored_bytes(), 0);
}

TEST_F(DamageTest, AStoreThatIsBusyReopeningIsNotDamaged) {
  const auto read = store().reads().Open("m", 1);
  fixture_.disk().SetFault({.at_call = 1, .for_good = true});
  // The chunk store answers UNAVAILABLE from here on.
  const TestContent other = RandomContent(7, 1, 3 << 20);
  EXPECT_FALSE(SaveOneShot(store(), other).ok());
  for (int c = 0; c < 3; ++c) (*read)->ReadChunk(0, 0, c).status().IgnoreError();
  fixture_.disk().SetFault({});
  ASSERT_OK(store().maintenance().ReopenIfClosed());
  EXPECT_EQ(Damaged(), 0);
  EXPECT_THAT(MissingIn(1), IsEmpty());
}

TEST_F(DamageTest, APackThatIsMissingCountsForAllOfItsChunks) {
  const TestContent other = RandomContent(2, 1, kBytes * 2);
  ASSERT_OK(SaveByUpload(store(), other, {.no_base = true}).status());
  const ChunkId place = PlaceOf(1, 0, 0);
  Engine engine = OpenMemoryEngine(std::make_shared<MemoryDisk>(fixture_.disk()));
  ASSERT_OK(engine.chunks->Reopen({}));
  ASSERT_OK(engine.chunks->DropPacks({{place.pack}}));
  // One read of one chunk tells.
  ExpectDamaged(1, 0, 5);
  for (const bool restarted : {false, true}) {
    if (restarted) {
      ASSERT_OK(fixture_.Reopen());
    }
    EXPECT_EQ(Damaged(), 24);
    EXPECT_EQ(MissingIn(1).size(), 24u);
  }
  SaveRequest request = RequestOf({});
  request.base_version = VersionName(1);
  auto save = saves().StartOneShot(request);
  ASSERT_OK((*save)->AddManifest(PartOf(content_)));
  for (const std::string& chunk : ChunksOf(content_)) {
    ASSERT_OK((*save)->Put(DigestOf(chunk), {chunk}));
  }
  const auto reopened = (*save)->Commit({});
  ASSERT_OK(reopened.status());
  EXPECT_EQ(reopened->damaged_base_bytes(), 2 * kBytes);
  ExpectWhole(reopened->version());
  EXPECT_EQ(*LoadAll(store(), 2), Expected(other));
}

TEST_F(DamageTest, ACollectionThatFindsItWhileItCopiesSaysSo) {
  TestContent more = content_;
  for (TestTensor& tensor : RandomContent(3, 6, kBytes)) {
    tensor.key = "more" + tensor.key;
    more.push_back(tensor);
  }
  // Of a large pack little stays in use.
  ASSERT_OK(SaveByUpload(store(), more, {.model = "other", .no_base = true}).status());
  {
    const auto source = store().reads().Open("other", 1);
    auto small = saves().StartDerived(RequestOf({.model = "small"}), {*source});
    ASSERT_OK((*small)->Commit(PartOf(content_), {}).status());
    const auto& piece = (*source)->manifest().tensors(0).pieces(0);
    ASSERT_TRUE(fixture_.disk().FlipBit(piece.packs(2), piece.sequences(2), 5));
  }
  ASSERT_OK(store().models().Delete("other", true, {}).status());
  EXPECT_EQ(Damaged(), 0);
  fixture_.UsedAfterCollection();
  EXPECT_EQ(Damaged(), 1);
}

TEST_F(DamageTest, WhatIsKnownOfAPackGoesWithIt) {
  Flip(1, 0, 3);
  ExpectDamaged(1);
  EXPECT_EQ(Damaged(), 1);
  ASSERT_OK(store().models().Delete("m", true, {}).status());
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
  EXPECT_EQ(Damaged(), 0);
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(Damaged(), 0);
}

TEST_F(DamageTest, ItIsKeptInMemoryUntilItCanBeWritten) {
  Flip(1, 0, 3);
  fixture_.disk().SetFault(
      {.at_call = 1, .for_good = true, .code = absl::StatusCode::kResourceExhausted});
  ExpectDamaged(1);
  EXPECT_EQ(Damaged(), 1);
  fixture_.disk().SetFault({});
  ASSERT_OK(store().maintenance().ReopenIfClosed());
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(Damaged(), 1);
}

TEST_F(DamageTest, OnAFullDiskNothingIsPersisted) {
  const auto upload = uploads().Create(RequestOf({}), 1, absl::Seconds(100));
  ASSERT_OK(upload.status());
  ASSERT_OK(
      SaveByUpload(store(), content_, {.model = "other", .request_id = "r"}).status());
  Flip(1, 0, 3);
  absl::SleepFor(absl::Milliseconds(150));  // until free bytes are asked for again
  fixture_.disk().SetCapacity(1);
  fixture_.Advance(absl::Hours(20));
  const int64_t calls = fixture_.disk().calls();
  ExpectDamaged(1);
  ASSERT_OK(store().maintenance().ReopenIfClosed());
  ASSERT_OK(NamedUpload(uploads(), "m", upload->upload_id()).State().status());
  ASSERT_OK(
      uploads().Create(RequestOf({.model = "other", .request_id = "r"}), 1, {}).status());
  EXPECT_EQ(fixture_.disk().calls(), calls);
  EXPECT_EQ(Damaged(), 1);
  fixture_.disk().SetCapacity(0);
  ASSERT_OK(store().maintenance().ReopenIfClosed());
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(Damaged(), 1);
}

TEST_F(DamageTest, ATensorOfBoolsIsNotCheckedAgainstDamagedBytes) {
  TestContent bits = RandomContent(7, 1, 3 << 20);
  bits[0].key = "bits";
  for (char& byte : bits[0].bytes) byte &= 1;
  ASSERT_OK(SaveByUpload(store(), bits, {.model = "bits"}).status());
  const auto read = store().reads().Open("bits", 1);
  const auto& piece = (*read)->manifest().tensors(0).pieces(0);
  ManifestPart part = PartOf(bits);
  part.mutable_tensors(0)->set_dtype(static_cast<uint32_t>(DType::kBool));
  const auto save = [&](const std::vector<std::string>& chunks) {
    auto made = saves().StartOneShot(RequestOf({.model = "bits"}));
    EXPECT_OK((*made)->AddManifest(part));
    for (const std::string& chunk : chunks) {
      EXPECT_OK((*made)->Put(DigestOf(chunk), {chunk}));
    }
    return (*made)->Commit({}).status();
  };
  const std::string first = ChunksOf(bits)[0];
  ASSERT_TRUE(fixture_.disk().FlipBit(piece.packs(0), piece.sequences(0), 9));
  EXPECT_TRUE(absl::IsUnavailable(save({})));
  EXPECT_EQ(Damaged(), 1);
  EXPECT_OK(save({first}));
  EXPECT_EQ(LoadAll(store(), 2, "bits")->at("model:bits"), bits[0].bytes);
  // What is gone, likewise.
  Engine engine = OpenMemoryEngine(std::make_shared<MemoryDisk>(fixture_.disk()));
  ASSERT_OK(engine.chunks->Reopen({}));
  ASSERT_OK(engine.chunks->DropPacks({{piece.packs(1)}}));
  SaveRequest request = RequestOf({.model = "bits"});
  request.base_version = VersionName(1);
  auto made = saves().StartOneShot(request);
  ASSERT_OK((*made)->AddManifest(part));
  ASSERT_OK((*made)->Put(DigestOf(first), {first}));
  EXPECT_TRUE(absl::IsUnavailable((*made)->Commit({}).status()));
}

TEST_F(DamageTest, VeryManyChunksAreNotListedOneByOne) {
  constexpr int kChunks = 2000;
  const TestContent content = RandomContent(9, 1, kChunks * 1000);
  const std::vector<std::string> chunks = ChunksOf(content, 1000);
  auto save = saves().StartOneShot(RequestOf({.model = "many"}));
  ASSERT_OK(save.status());
  ASSERT_OK((*save)->AddManifest(PartOf(content, true, 1000)));
  for (const std::string& chunk : chunks) {
    ASSERT_OK((*save)->Put(DigestOf(chunk), {chunk}));
  }
  ASSERT_OK((*save)->Commit({}).status());
  save->reset();
  auto read = store().reads().Open("many", 1);
  const auto& piece = (*read)->manifest().tensors(0).pieces(0);
  const int64_t used = fixture_.disk().used_bytes();
  for (int c = 0; c < 1100; ++c) {
    ASSERT_TRUE(fixture_.disk().FlipBit(piece.packs(c), piece.sequences(c), 3));
    EXPECT_TRUE(absl::IsDataLoss((*read)->ReadChunk(0, 0, c).status()));
  }
  EXPECT_LT(fixture_.disk().used_bytes(), used + 5000);
  read->reset();
  for (const bool restarted : {false, true}) {
    if (restarted) {
      ASSERT_OK(fixture_.Reopen());
    }
    EXPECT_GE(Damaged(), kChunks);
    EXPECT_LE(Damaged(), kChunks + 1100);
    const auto record = store().checkpoints().Get("many", 1);
    EXPECT_EQ(saves().FindMissing(*record, DigestsOf(chunks))->size(), chunks.size());
  }
}

}  // namespace
}  // namespace modelstore::storage
