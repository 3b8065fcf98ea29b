// DeleteModel of a large model: the name is free at once, and what it held goes in the
// background, also across restarts.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

constexpr int kVersions = 3000;

class ModelDeletionTest : public ::testing::Test {
 protected:
  CheckpointStore& store() { return fixture_.store(); }

  // Versions with a request_id each; every tenth has a pack to itself, and the others
  // share one.
  void SaveMany(int versions, const std::string& model = "m") {
    const TestContent shared = RandomContent(1, 1, 100);
    for (int v = 0; v < versions; ++v) {
      const bool own = v % 10 == 0;
      ASSERT_OK(SaveOneShot(
                    store(), own ? RandomContent(v + 2, 1, 100) : shared,
                    {.model = model, .request_id = absl::StrCat("r", v), .no_base = own})
                    .status());
    }
  }
  void DeleteModel(const std::string& model = "m") {
    ASSERT_OK(store().models().Delete(model, true, {}).status());
  }

  StoreFixture fixture_;
};

TEST_F(ModelDeletionTest, TheCallWritesLittleWhateverTheModelHolds) {
  SaveMany(kVersions);
  const int64_t before = fixture_.disk().calls();
  const auto freed = store().models().Delete("m", true, {});
  ASSERT_OK(freed.status());
  EXPECT_LT(fixture_.disk().calls() - before, 10);
  EXPECT_EQ(freed->freed_bytes, 0);
  EXPECT_GT(freed->waiting_bytes, 0);
  EXPECT_TRUE(absl::IsNotFound(store().models().Get("m").status()));
  EXPECT_TRUE(absl::IsNotFound(LoadAll(store(), 1).status()));
  EXPECT_EQ(store().maintenance().Stats()->checkpoint_count, 0);
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);  // the store's own record
}

TEST_F(ModelDeletionTest, ASmallModelIsMissingWithTheCall) {
  SaveMany(20);
  const auto freed = store().models().Delete("m", true, {});
  ASSERT_OK(freed.status());
  EXPECT_EQ(freed->freed_bytes, 400);
  EXPECT_EQ(freed->waiting_bytes, 0);
  EXPECT_LT(fixture_.disk().used_bytes(), 100);
}

TEST_F(ModelDeletionTest, ANewModelOfTheNameIsNotTouched) {
  SaveMany(kVersions);
  DeleteModel();
  const TestContent content = RandomContent(99'999, 2, 200 << 10);
  const auto saved = SaveByUpload(store(), content, {.request_id = "r1"});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->version(), 1);
  for (const bool restarted : {false, true}) {
    fixture_.UsedAfterCollection();
    if (restarted) {
      ASSERT_OK(fixture_.Reopen());
    }
    const auto loaded = LoadAll(store(), 1);
    ASSERT_OK(loaded.status());
    EXPECT_EQ(*loaded, Expected(content));
    EXPECT_EQ(store().models().Get("m")->checkpoint_count(), 1);
    EXPECT_EQ(SaveByUpload(store(), content, {.request_id = "r1"})->version(), 1);
  }
}

TEST_F(ModelDeletionTest, ACollectionThatIsStoppedOrFailsIsMissingOnWith) {
  SaveMany(kVersions);
  const TestContent other = RandomContent(5, 2, 1000);
  ASSERT_OK(SaveOneShot(store(), other, {.model = "other"}).status());
  DeleteModel();
  int asked = 0;
  EXPECT_TRUE(absl::IsCancelled(
      store()
          .maintenance()
          .CollectGarbage(false, [&](int64_t, int64_t) { return ++asked < 3; })
          .status()));
  for (int fault = 1; fault < 8; ++fault) {
    // At one of the batches; what was buffered before is lost with it.
    fixture_.disk().SetFault({.at_call = fault, .for_good = true});
    store().maintenance().CollectGarbage(false, nullptr).status().IgnoreError();
    fixture_.Close();
    fixture_.disk().SetFault({});
    fixture_.disk().LosePower();
    ASSERT_OK(fixture_.Reopen());
    EXPECT_TRUE(absl::IsNotFound(store().models().Get("m").status()));
    EXPECT_EQ(*LoadAll(store(), {}, "other"), Expected(other));
  }
  fixture_.UsedAfterCollection();
  ASSERT_OK(store().models().Delete("other", true, {}).status());
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
}

TEST_F(ModelDeletionTest, WhatWasBufferedAndLostInBetweenIsFoundAgain) {
  SaveMany(kVersions);
  DeleteModel();
  // As a reopening after a fault may do.
  int asked = 0;
  ASSERT_OK(store()
                .maintenance()
                .CollectGarbage(false,
                                [&](int64_t, int64_t) {
                                  if (++asked == 4) fixture_.disk().LosePower();
                                  return true;
                                })
                .status());
  EXPECT_GT(asked, 4);
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
}

TEST_F(ModelDeletionTest, AfterAFaultAnotherPassIsMade) {
  SaveMany(20);
  const auto waiting = [&] {
    int rows = 0;
    const Engine engine = OpenMemoryEngine(std::make_shared<MemoryDisk>(fixture_.disk()));
    EXPECT_OK(engine.catalog->Scan(Space::kRecords, PrefixRange(keys::DeadModels()),
                                   [&](absl::string_view, absl::string_view) {
                                     ++rows;
                                     return true;
                                   }));
    return rows;
  };
  // After the model's deletion and the batch that spreads it.
  fixture_.disk().SetFault({.at_call = 3});
  DeleteModel();
  EXPECT_EQ(waiting(), 1);
  EXPECT_LT(fixture_.UsedAfterCollection(), 100);
  EXPECT_EQ(waiting(), 0);
}

TEST_F(ModelDeletionTest, ALoadContinuesWhileItsModelGoes) {
  SaveMany(kVersions);
  const auto read = store().reads().Open("m", 11);
  ASSERT_OK(read.status());
  DeleteModel();
  fixture_.UsedAfterCollection();
  EXPECT_EQ(*LoadAll(**read), Expected(RandomContent(12, 1, 100)));
}

}  // namespace
}  // namespace modelstore::storage
