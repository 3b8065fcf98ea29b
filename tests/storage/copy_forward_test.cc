// Space inside packs: what is alive is copied out of packs that are mostly dead,
// small packs are merged, and nobody notices but the disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
// Beyond what is kept inline.
constexpr size_t kPackful = kMiB + 5 * kTestChunk;

class Events final : public Listener {
 public:
  void OnEvent(Severity severity, absl::string_view message) override {
    MutexLock lock(mutex_);
    if (severity == Severity::kWarning) warnings_.emplace_back(message);
  }
  std::vector<std::string> warnings() {
    MutexLock lock(mutex_);
    return warnings_;
  }

 private:
  Mutex mutex_;
  std::vector<std::string> warnings_ GUARDED_BY(mutex_);
};

class CopyForwardTest : public ::testing::Test {
 protected:
  CopyForwardTest() {
    fixture_.options().pack_bytes = 16 * kMiB;
    fixture_.options().listener = &events_;
    EXPECT_OK(fixture_.Reopen());
  }

  CheckpointStore& store() { return fixture_.store(); }
  GarbageResult Collect(bool validate_only = false) {
    const auto result = store().maintenance().CollectGarbage(validate_only, nullptr);
    EXPECT_OK(result.status());
    return result.ok() ? *result : GarbageResult();
  }
  int64_t Delete(int64_t version) {
    const auto freed = store().checkpoints().Delete("m", version, {});
    EXPECT_OK(freed.status());
    return freed.ok() ? freed->freed_bytes : 0;
  }
  // Version 1 has four tensors of a MiB, version 2 the first of them alone.
  void SaveAndShare() {
    ASSERT_OK(SaveByUpload(store(), whole_).status());
    ASSERT_OK(SaveByUpload(store(), shared_).status());
    ASSERT_EQ(fixture_.Packs().size(), 1u);
  }
  void ExpectReadsBack(int64_t version, const TestContent& content) {
    const auto loaded = LoadAll(store(), version);
    ASSERT_OK(loaded.status());
    EXPECT_EQ(*loaded, Expected(content));
  }
  // Deletes all, and looks for what is left.
  void ExpectEmpty() {
    EXPECT_OK(store().models().Delete("m", true, {}).status());
    fixture_.Advance(absl::Hours(48));  // records of committed uploads
    EXPECT_LT(fixture_.UsedAfterCollection(), 100);
    EXPECT_TRUE(fixture_.Packs().empty());
  }

  const TestContent whole_ = RandomContent(1, 4, kMiB);
  const TestContent shared_ = {whole_[0]};
  Events events_;
  StoreFixture fixture_;
};

TEST_F(CopyForwardTest, TheDeadPartOfAPackLeavesTheDiskAndTheRestReadsBack) {
  SaveAndShare();
  const uint64_t before = fixture_.Packs().front();
  Delete(1);
  const int64_t used = fixture_.disk().used_bytes();
  const GarbageResult planned = Collect(/*validate_only=*/true);
  EXPECT_EQ(planned.freed_bytes, static_cast<int64_t>(3 * kMiB));
  EXPECT_EQ(planned.reclaimable_bytes, 0);
  EXPECT_EQ(store().maintenance().Stats()->reclaimable_bytes,
            static_cast<int64_t>(3 * kMiB));
  const GarbageResult result = Collect();
  EXPECT_EQ(result.freed_bytes, static_cast<int64_t>(3 * kMiB));
  EXPECT_EQ(result.reclaimable_bytes, 0);
  EXPECT_EQ(store().maintenance().Stats()->reclaimable_bytes, 0);
  // A few bytes more or less of the catalog's records.
  EXPECT_NEAR(static_cast<double>(used - fixture_.disk().used_bytes()), 3.0 * kMiB, 100);
  ASSERT_EQ(fixture_.Packs().size(), 1u);
  EXPECT_NE(fixture_.Packs().front(), before);
  ExpectReadsBack(2, shared_);
  ASSERT_OK(fixture_.Reopen());
  ExpectReadsBack(2, shared_);
  EXPECT_EQ(Collect().freed_bytes, 0);
  ExpectEmpty();
}

TEST_F(CopyForwardTest, ChunksFromTheMiddleOfAPackMoveOverAndOver) {
  ASSERT_OK(SaveByUpload(store(), whole_).status());
  const TestContent middle = {whole_[1], whole_[3]};
  ASSERT_OK(SaveByUpload(store(), middle).status());
  const TestContent last = {whole_[3]};
  ASSERT_OK(SaveByUpload(store(), last).status());
  Delete(1);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(2 * kMiB));
  ExpectReadsBack(2, middle);
  Delete(2);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(kMiB));
  ExpectReadsBack(3, last);
  ASSERT_OK(fixture_.Reopen());
  ExpectReadsBack(3, last);
  ExpectEmpty();
}

TEST_F(CopyForwardTest, ReadersAndOpenUploadsOfTheOldPackContinue) {
  SaveAndShare();
  const auto read = store().reads().Open("m", 2);
  ASSERT_OK(read.status());
  const auto pinned = (*read)->ReadChunk(0, 0, 3);
  ASSERT_OK(pinned.status());
  const auto upload = store().uploads().Create(RequestOf({}), 1, absl::ZeroDuration());
  ASSERT_OK(upload.status());
  const std::string id = upload->upload_id();
  ASSERT_OK(NamedUpload(store().uploads(), "m", id)
                .FindMissing(DigestsOf(ChunksOf(shared_)))
                .status());
  Delete(1);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(3 * kMiB));
  EXPECT_EQ(pinned->view(), ChunksOf(shared_)[3]);
  EXPECT_EQ(*LoadAll(**read), Expected(shared_));
  ASSERT_OK(NamedUpload(store().uploads(), "m", id)
                .AddManifest(0, PartOf(shared_), true, true));
  Delete(2);  // held by the upload
  Collect();
  ASSERT_OK(NamedUpload(store().uploads(), "m", id).Commit({}).status());
  EXPECT_EQ(*LoadAll(**read), Expected(shared_));
  ExpectReadsBack(3, shared_);
  (void)Collect();
  ExpectReadsBack(3, shared_);
}

TEST_F(CopyForwardTest, AVersionThatIsStillReadKeepsItsChunksInTheCopy) {
  SaveAndShare();
  auto read = store().reads().Open("m", 1);
  ASSERT_OK(read.status());
  Delete(1);
  EXPECT_EQ(Collect().freed_bytes, 0);
  EXPECT_EQ(*LoadAll(**read), Expected(whole_));
  read->reset();
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(3 * kMiB));
  ExpectReadsBack(2, shared_);
}

TEST_F(CopyForwardTest, SmallPacksAreMergedOnceThereAreMany) {
  std::vector<TestContent> contents;
  const int many = static_cast<int>(fixture_.options().merge_packs);
  for (int i = 0; i < many; ++i) {
    EXPECT_EQ(Collect().freed_bytes, 0);
    EXPECT_EQ(fixture_.Packs().size(), static_cast<size_t>(i));
    contents.push_back(RandomContent(100 + static_cast<uint64_t>(i), 1, kPackful));
    ASSERT_OK(SaveByUpload(store(), contents.back()).status());
  }
  Collect();
  // As many as hold them, of 16 MiB at most.
  EXPECT_EQ(fixture_.Packs().size(), 2u);
  for (int i = 0; i < many; ++i) ExpectReadsBack(i + 1, contents[i]);
  // What dies inside is told, and copied out of once it is half.
  Delete(1);
  EXPECT_EQ(Collect().reclaimable_bytes, static_cast<int64_t>(kPackful));
  const int64_t used = fixture_.disk().used_bytes();
  int64_t freed = 0;
  for (int i = 1; i < many - 2; ++i) freed += Delete(i + 1);
  freed += Collect().freed_bytes;
  EXPECT_EQ(freed, static_cast<int64_t>((many - 2) * kPackful));
  EXPECT_GE(used - fixture_.disk().used_bytes(), freed);
  ASSERT_OK(fixture_.Reopen());
  for (int i = many - 2; i < many; ++i) ExpectReadsBack(i + 1, contents[i]);
  ExpectEmpty();
}

TEST_F(CopyForwardTest, DeadChunksOfASmallSaveAreDeletedInPlace) {
  const TestContent small = RandomContent(7, 4, kTestChunk);
  ASSERT_OK(SaveOneShot(store(), small).status());
  ASSERT_OK(SaveOneShot(store(), {small[2]}).status());
  Delete(1);
  const int64_t used = fixture_.disk().used_bytes();
  EXPECT_EQ(Collect().freed_bytes, 3 * kTestChunk);
  EXPECT_GE(used - fixture_.disk().used_bytes(), 3 * kTestChunk);
  EXPECT_EQ(Collect().freed_bytes, 0);
  ExpectReadsBack(2, {small[2]});
  ExpectEmpty();
}

TEST_F(CopyForwardTest, DamageStaysWhereItIsAndIsReportedStill) {
  const TestContent two = {whole_[0], whole_[1]};
  ASSERT_OK(SaveByUpload(store(), whole_).status());
  ASSERT_OK(SaveByUpload(store(), two).status());
  uint64_t damaged_pack = 0;
  {
    const auto read = store().reads().Open("m", 2);
    const auto& piece = (*read)->manifest().tensors(1).pieces(0);
    damaged_pack = piece.packs(5);
    ASSERT_TRUE(fixture_.disk().FlipBit(damaged_pack, piece.sequences(5), 4711));
  }
  // Another pack, mostly dead too, goes into the same new one.
  const TestContent other = RandomContent(9, 4, kMiB);
  ASSERT_OK(SaveByUpload(store(), other).status());
  ASSERT_OK(SaveByUpload(store(), {other[1]}).status());
  Delete(1);
  Delete(3);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(3 * kMiB));
  EXPECT_THAT(fixture_.Packs(), ::testing::Contains(damaged_pack));
  ExpectReadsBack(4, {other[1]});
  const auto read = store().reads().Open("m", 2);
  EXPECT_OK((*read)->ReadChunk(0, 0, 5).status());
  EXPECT_TRUE(absl::IsDataLoss((*read)->ReadChunk(1, 0, 5).status()));
  EXPECT_EQ(Collect().reclaimable_bytes, static_cast<int64_t>(2 * kMiB));
  const auto told = events_.warnings();
  EXPECT_EQ(std::count_if(told.begin(), told.end(),
                          [](const std::string& warning) {
                            return warning.find("does not match its digest") !=
                                   std::string::npos;
                          }),
            1);
}

TEST_F(CopyForwardTest, WithoutRoomForTheCopyThePackWaits) {
  const TestContent half = {whole_[0], whole_[1]};
  ASSERT_OK(SaveByUpload(store(), whole_).status());
  ASSERT_OK(SaveByUpload(store(), half).status());
  Delete(1);
  fixture_.disk().SetCapacity(fixture_.disk().used_bytes() + MemoryDisk::kBallastBytes +
                              static_cast<int64_t>(kMiB));
  const GarbageResult result = Collect();
  EXPECT_EQ(result.freed_bytes, 0);
  EXPECT_EQ(result.reclaimable_bytes, static_cast<int64_t>(2 * kMiB));
  ExpectReadsBack(2, half);
  fixture_.disk().SetCapacity(0);
  fixture_.Advance(absl::Minutes(1));
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(2 * kMiB));
  ExpectReadsBack(2, half);
}

TEST_F(CopyForwardTest, ACollectionThatIsStoppedLeavesAllAsItWas) {
  SaveAndShare();
  const std::vector<uint64_t> packs = fixture_.Packs();
  Delete(1);
  // The last step of the sweep before it is let through.
  int calls = 0;
  const auto result = store().maintenance().CollectGarbage(
      false, [&](int64_t, int64_t) { return ++calls < 3; });
  EXPECT_TRUE(absl::IsCancelled(result.status())) << result.status();
  EXPECT_EQ(fixture_.Packs(), packs);
  ExpectReadsBack(2, shared_);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(3 * kMiB));
}

// The copy's own calls fail one by one, each before and after its effect, once and
// for good; then the power is lost, or not.
TEST(CopyForwardFaultTest, AFailureAtAnyCallLosesAndLeavesNothing) {
  const TestContent whole = RandomContent(1, 3, 8 * kTestChunk);
  const TestContent shared = {whole[1]};
  int faults = 0;
  for (const bool after_effect : {false, true}) {
    for (const bool for_good : {false, true}) {
      for (const bool power_lost : {false, true}) {
        for (int64_t n = 1; !::testing::Test::HasFailure(); ++n) {
          SCOPED_TRACE(testing::Message()
                       << "call " << n << (after_effect ? " after its effect" : "")
                       << (for_good ? " for good" : "")
                       << (power_lost ? ", power lost" : ""));
          StoreFixture fixture;
          fixture.options().pack_bytes = 16 * kMiB;
          ASSERT_OK(fixture.Reopen());
          ASSERT_OK(SaveByUpload(fixture.store(), whole).status());
          ASSERT_OK(SaveByUpload(fixture.store(), shared).status());
          ASSERT_OK(fixture.store().checkpoints().Delete("m", 1, {}).status());
          const int64_t before = fixture.disk().calls();
          fixture.disk().SetFault(
              {.at_call = n, .for_good = for_good, .after_effect = after_effect});
          fixture.store()
              .maintenance()
              .CollectGarbage(false, nullptr)
              .status()
              .IgnoreError();
          const bool failed = fixture.disk().calls() - before >= n;
          fixture.disk().SetFault({});
          if (power_lost) {
            fixture.Close();
            fixture.disk().LosePower();
            ASSERT_OK(fixture.Reopen());
          }
          ASSERT_OK(fixture.store().maintenance().ReopenIfClosed());
          const auto loaded = LoadAll(fixture.store(), 2);
          ASSERT_OK(loaded.status());
          EXPECT_EQ(*loaded, Expected(shared));
          EXPECT_LT(fixture.UsedAfterCollection(), 9 * kTestChunk);
          EXPECT_EQ(fixture.Packs().size(), 1u);
          EXPECT_EQ(*LoadAll(fixture.store(), 2), Expected(shared));
          EXPECT_OK(fixture.store().models().Delete("m", true, {}).status());
          fixture.Advance(absl::Hours(48));
          EXPECT_LT(fixture.UsedAfterCollection(), 100);
          if (!failed) break;
          ++faults;
        }
      }
    }
  }
  std::printf("copying forward failed at %d calls\n", faults);
  EXPECT_GT(faults, 60);
}

TEST_F(CopyForwardTest, APackThatTheDiskCannotReadStaysAndTheOthersMove) {
  SaveAndShare();
  const TestContent other = RandomContent(5, 4, kMiB);
  ASSERT_OK(SaveByUpload(store(), other).status());
  ASSERT_OK(SaveByUpload(store(), {other[2]}).status());
  uint64_t pack = 0;
  uint32_t sequence = 0;
  {
    const auto read = store().reads().Open("m", 4);
    const auto& piece = (*read)->manifest().tensors(0).pieces(0);
    pack = piece.packs(1);
    sequence = piece.sequences(1);
  }
  fixture_.disk().SetBadSector(pack, sequence, true);
  Delete(1);
  Delete(3);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(3 * kMiB));
  ASSERT_EQ(events_.warnings().size(), 1u);
  EXPECT_THAT(events_.warnings()[0], ::testing::HasSubstr("cannot be read"));
  ExpectReadsBack(2, shared_);
  EXPECT_THAT(fixture_.Packs(), ::testing::Contains(pack));
  // The first collection that has something to do tries again.
  fixture_.disk().SetBadSector(pack, sequence, false);
  ASSERT_OK(SaveByUpload(store(), RandomContent(6, 1, kPackful)).status());
  Delete(5);
  EXPECT_EQ(Collect().freed_bytes, static_cast<int64_t>(3 * kMiB));
  ExpectReadsBack(4, {other[2]});
  ExpectEmpty();
}

}  // namespace
}  // namespace modelstore::storage
