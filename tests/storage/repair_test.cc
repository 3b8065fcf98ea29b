// Versions that name damaged chunks are given the copies that a later save has stored:
// they are whole again, whatever becomes of that save.
#include <gtest/gtest.h>

#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

constexpr size_t kBytes = 12 * kTestChunk;  // of a tensor

class RepairTest : public ::testing::Test {
 protected:
  CheckpointStore& store() { return fixture_.store(); }

  // Two versions that share their chunks, but for one tensor of the second.
  void SetUp() override {
    fixture_.options().pack_bytes = 64 << 20;
    ASSERT_OK(fixture_.Reopen());
    second_.push_back(Vector("new", "only in the second"));
    ASSERT_OK(SaveByUpload(store(), first_).status());
    ASSERT_OK(SaveByUpload(store(), second_).status());
  }
  // Damages a chunk of both, and has it noticed.
  void Damage(int tensor, int chunk) {
    const auto read = store().reads().Open("m", 1);
    const auto& piece = (*read)->manifest().tensors(tensor).pieces(0);
    ASSERT_TRUE(fixture_.disk().FlipBit(piece.packs(chunk), piece.sequences(chunk), 9));
    ASSERT_TRUE(absl::IsDataLoss((*read)->ReadChunk(tensor, 0, chunk).status()));
  }
  void DropPackOfTheFirst() {
    const auto read = store().reads().Open("m", 1);
    Engine engine = OpenMemoryEngine(std::make_shared<MemoryDisk>(fixture_.disk()));
    ASSERT_OK(engine.chunks->Reopen({}));
    ASSERT_OK(
        engine.chunks->DropPacks({{(*read)->manifest().tensors(0).pieces(0).packs(0)}}));
    ASSERT_TRUE(absl::IsDataLoss((*read)->ReadChunk(0, 0, 0).status()));
  }
  // As the third version.
  void SaveAgain(int64_t damaged_bytes) {
    const auto saved = SaveByUpload(store(), first_);
    ASSERT_OK(saved.status());
    ASSERT_EQ(saved->version(), 3);
    ASSERT_EQ(saved->damaged_base_bytes(), damaged_bytes);
  }
  void Collect() {
    ASSERT_OK(store().maintenance().CollectGarbage(false, nullptr).status());
  }
  int64_t Damaged() { return store().maintenance().Stats()->damaged_chunks; }
  void ExpectWhole(int64_t version, const TestContent& content) {
    const auto loaded = LoadAll(store(), version);
    ASSERT_OK(loaded.status());
    EXPECT_EQ(*loaded, Expected(content));
  }
  bool IsDamaged(int64_t version) {
    return absl::IsDataLoss(LoadAll(store(), version).status());
  }
  void ExpectEmpty() {
    ASSERT_OK(store().models().Delete("m", true, {}).status());
    fixture_.Advance(absl::Minutes(5));
    EXPECT_LT(fixture_.UsedAfterCollection(), 100);
  }

  const TestContent first_ = RandomContent(1, 2, kBytes);
  TestContent second_ = first_;
  StoreFixture fixture_;
};

TEST_F(RepairTest, OldVersionsAreWholeAgainAfterASaveAndACollection) {
  Damage(0, 3);
  Damage(1, 11);
  const auto before = store().checkpoints().Get("m", 1);
  SaveAgain(2 * kTestChunk);
  EXPECT_TRUE(IsDamaged(1));
  EXPECT_TRUE(IsDamaged(2));
  Collect();
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  EXPECT_EQ(Damaged(), 0);
  const auto after = store().checkpoints().Get("m", 1);
  EXPECT_EQ(after->generation(), before->generation());
  EXPECT_EQ(after->manifest_digest(), before->manifest_digest());
  EXPECT_EQ(after->stored_bytes(), before->stored_bytes());
  // Whatever becomes of the save that brought the copies, and across a restart.
  ASSERT_OK(store().checkpoints().Delete("m", 3, {}).status());
  Collect();
  ASSERT_OK(fixture_.Reopen());
  Collect();
  EXPECT_EQ(Damaged(), 0);
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  EXPECT_EQ(SaveByUpload(store(), first_)->stored_bytes(), 0);
  ExpectWhole(4, first_);
  ExpectEmpty();
}

TEST_F(RepairTest, APackThatIsLostAsAWholeIsReplaced) {
  DropPackOfTheFirst();
  EXPECT_EQ(Damaged(), 24);
  SaveAgain(2 * kBytes);
  Collect();
  EXPECT_EQ(Damaged(), 0);
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  ASSERT_OK(store().checkpoints().Delete("m", 3, {}).status());
  Collect();
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(Damaged(), 0);
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  ExpectEmpty();
}

TEST_F(RepairTest, ADeletedSaveStillGivesItsCopies) {
  fixture_.options().grace = absl::Minutes(1);
  ASSERT_OK(fixture_.Reopen());
  Damage(0, 3);
  SaveAgain(kTestChunk);
  ASSERT_OK(store().checkpoints().Delete("m", 3, {}).status());
  fixture_.Advance(absl::Minutes(5));
  Collect();
  ExpectWhole(1, first_);
  ExpectEmpty();
}

TEST_F(RepairTest, CopiesThatAreMissingRepairNothingAndDamageNothing) {
  Damage(0, 3);
  SaveAgain(kTestChunk);
  ASSERT_OK(store().checkpoints().Delete("m", 3, {}).status());  // at once
  Collect();
  EXPECT_TRUE(IsDamaged(1));
  EXPECT_EQ(Damaged(), 1);
  EXPECT_EQ(SaveByUpload(store(), first_)->damaged_base_bytes(), kTestChunk);
  Collect();
  ExpectWhole(1, first_);
}

TEST_F(RepairTest, AVersionThatIsHeldIsRepairedAndItsPackWaits) {
  Damage(0, 3);
  for (int chunk = 0; chunk < 12; ++chunk) {
    if (chunk != 3) Damage(0, chunk);
    Damage(1, chunk);
  }
  SaveAgain(2 * kBytes);
  const auto upload = store().uploads().Create(
      [] {
        SaveRequest request = RequestOf({});
        request.base_version = VersionName(2);
        return request;
      }(),
      1, {});
  ASSERT_OK(upload.status());
  auto read = store().reads().Open("m", 1);
  const size_t packs = fixture_.Packs().size();
  for (int round = 0; round < 2; ++round) {
    Collect();
    ExpectWhole(1, first_);
    ExpectWhole(2, second_);
    EXPECT_EQ(fixture_.Packs().size(), packs);
  }
  ASSERT_OK(NamedUpload(store().uploads(), "m", upload->upload_id()).Delete());
  Collect();
  EXPECT_EQ(fixture_.Packs().size(), packs) << "the version that is read keeps it";
  read->reset();
  Collect();
  EXPECT_EQ(fixture_.Packs().size(), packs - 1);
  EXPECT_EQ(Damaged(), 0);
  ASSERT_OK(store().checkpoints().Delete("m", 3, {}).status());
  ASSERT_OK(fixture_.Reopen());
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  ExpectEmpty();
}

TEST_F(RepairTest, ACopyThatIsDamagedItselfRepairsNothing) {
  // More than 1 MiB, so that the copies lie in a pack and not in the catalog.
  for (int chunk = 0; chunk < 12; ++chunk) Damage(0, chunk);
  for (int chunk = 0; chunk < 5; ++chunk) Damage(1, chunk);
  SaveAgain(17 * kTestChunk);
  const auto read = store().reads().Open("m", 3);
  const auto& piece = (*read)->manifest().tensors(0).pieces(0);
  const ChunkId copy{piece.packs(3), piece.sequences(3)};
  ASSERT_TRUE(fixture_.disk().FlipBit(copy.pack, copy.sequence, 9)) << "nobody notices";
  Collect();
  const auto first = store().reads().Open("m", 1);
  EXPECT_EQ((*first)->manifest().tensors(0).pieces(0).packs(2), copy.pack);
  EXPECT_NE((*first)->manifest().tensors(0).pieces(0).packs(3), copy.pack);
  EXPECT_TRUE(IsDamaged(1));
  EXPECT_EQ(Damaged(), 1);
  // The next save stores the chunk once more.
  EXPECT_TRUE(IsDamaged(3));
  EXPECT_EQ(Damaged(), 2);
  ASSERT_EQ(SaveByUpload(store(), first_)->version(), 4);
  ExpectWhole(4, first_);
  Collect();
  ExpectWhole(3, first_);
}

TEST_F(RepairTest, ACopyThatTheSaveDidNotUseIsNotNoted) {
  Damage(0, 3);
  const std::vector<std::string> chunks = ChunksOf(first_);
  // It brings the bytes, in a pack that it uses, and does not name them.
  TestContent other = {Vector("other", std::string(kBytes, 'x'))};
  auto save = store().saves().StartOneShot(RequestOf({}));
  ASSERT_OK((*save)->AddManifest(PartOf(other)));
  ASSERT_OK((*save)->Put(DigestOf(chunks[3]), {chunks[3]}));
  for (const std::string& chunk : ChunksOf(other)) {
    ASSERT_OK((*save)->Put(DigestOf(chunk), {chunk}));
  }
  const auto saved = (*save)->Commit({});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->damaged_base_bytes(), 0);
  Collect();
  EXPECT_TRUE(IsDamaged(1));
  EXPECT_EQ(Damaged(), 1);
}

TEST_F(RepairTest, ACopyOfAChunkThatIsReadWellAgainIsNotUsed) {
  const auto read = store().reads().Open("m", 1);
  const auto& piece = (*read)->manifest().tensors(0).pieces(0);
  const ChunkId chunk{piece.packs(3), piece.sequences(3)};
  Damage(0, 3);
  SaveAgain(kTestChunk);
  ASSERT_TRUE(fixture_.disk().FlipBit(chunk.pack, chunk.sequence, 9));
  ASSERT_OK((*read)->ReadChunk(0, 0, 3).status());
  EXPECT_EQ(Damaged(), 0);
  Collect();
  const auto after = store().reads().Open("m", 2);
  EXPECT_EQ((*after)->manifest().tensors(0).pieces(0).packs(3), chunk.pack);
}

TEST_F(RepairTest, AnOpenUploadSharesNothingThatItsBaseHadDamaged) {
  Damage(0, 3);
  const auto upload = store().uploads().Create(RequestOf({}), 1, {});
  const std::string id = upload->upload_id();
  const std::vector<std::string> chunks = ChunksOf(first_);
  EXPECT_EQ(
      NamedUpload(store().uploads(), "m", id).FindMissing(DigestsOf(chunks))->size(), 1u);
  SaveAgain(kTestChunk);
  Collect();
  EXPECT_EQ(
      NamedUpload(store().uploads(), "m", id).FindMissing(DigestsOf(chunks))->size(), 1u);
  auto sink = NamedUpload(store().uploads(), "m", id).OpenSink();
  ASSERT_OK(PutAll(**sink, {chunks[3]}));
  ASSERT_OK(
      NamedUpload(store().uploads(), "m", id).AddManifest(0, PartOf(first_), true, true));
  ASSERT_OK(NamedUpload(store().uploads(), "m", id).Commit({}).status());
  Collect();
  for (int64_t version : {1, 3, 4}) ExpectWhole(version, first_);
  ExpectWhole(2, second_);
}

TEST_F(RepairTest, ItSurvivesAFaultAtAnyStep) {
  DropPackOfTheFirst();
  SaveAgain(2 * kBytes);
  for (const bool after_effect : {false, true}) {
    for (int64_t step = 1; step < 8; ++step) {
      fixture_.disk().SetFault(
          {.at_call = step, .for_good = true, .after_effect = after_effect});
      store().maintenance().CollectGarbage(false, nullptr).status().IgnoreError();
      fixture_.Close();
      fixture_.disk().SetFault({});
      fixture_.disk().LosePower();
      ASSERT_OK(fixture_.Reopen());
      ExpectWhole(3, first_);
      const auto old = LoadAll(store(), 1);
      if (old.ok()) {
        EXPECT_EQ(*old, Expected(first_));
      } else {
        EXPECT_TRUE(absl::IsDataLoss(old.status())) << old.status();
      }
    }
  }
  Collect();
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  ExpectEmpty();
}

TEST_F(RepairTest, ACopyThatTheDiskCannotReadStopsNoCollection) {
  DropPackOfTheFirst();
  SaveAgain(2 * kBytes);
  ASSERT_OK(SaveOneShot(store(), RandomContent(9, 1, 2 << 20), {.model = "x"}).status());
  uint64_t pack = 0;
  uint32_t sequence = 0;
  {
    const auto read = store().reads().Open("m", 3);
    const auto& piece = (*read)->manifest().tensors(0).pieces(0);
    pack = piece.packs(5);
    sequence = piece.sequences(5);
    const auto other = store().reads().Open("x", 1);
    ASSERT_OK(store().models().Delete("x", true, {}).status());
  }
  fixture_.disk().SetBadSector(pack, sequence, true);
  ASSERT_EQ(fixture_.Packs().size(), 2u);
  Collect();
  EXPECT_EQ(fixture_.Packs().size(), 1u);
  // All but that chunk has been repaired.
  EXPECT_TRUE(IsDamaged(1));
  {
    const auto read = store().reads().Open("m", 1);
    EXPECT_OK((*read)->ReadChunk(0, 0, 4).status());
  }
  fixture_.disk().SetBadSector(pack, sequence, false);
  Collect();
  EXPECT_EQ(Damaged(), 0);
  ExpectWhole(1, first_);
  ExpectWhole(2, second_);
  ExpectEmpty();
}

}  // namespace
}  // namespace modelstore::storage
