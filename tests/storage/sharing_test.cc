// Copies within a model and into another: no byte is written again, and source and
// copy may go in either order. (derived_test.cc: what is made of several.)
#include <gtest/gtest.h>

#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

// Beyond what gathers in memory: an ordinary pack.
constexpr size_t kLarge = size_t{3} << 20;

class SharingTest : public ::testing::TestWithParam<size_t> {
 protected:
  SharingTest() : content_(RandomContent(7, 2, GetParam())) {}

  void SetUp() override {
    ASSERT_OK(SaveOneShot(fixture_.store(), content_).status());
    used_ = fixture_.UsedAfterCollection();
  }
  absl::Status Delete(const std::string& model, int64_t version) {
    return fixture_.store().checkpoints().Delete(model, version, {}).status();
  }

  StoreFixture fixture_;
  const TestContent content_;
  int64_t used_ = 0;
};

TEST_P(SharingTest, ACopyWritesNoChunkAndReadsBackBitForBit) {
  const auto copy = Copy(fixture_.store(), 1, "", "other");
  ASSERT_OK(copy.status());
  EXPECT_EQ(copy->version(), 1);
  EXPECT_EQ(copy->base_model_id(), "m");
  EXPECT_EQ(copy->base_version(), 1);
  EXPECT_EQ(copy->stored_bytes(), 0);
  EXPECT_EQ(copy->logical_bytes(), static_cast<int64_t>(2 * GetParam()));
  EXPECT_EQ(*LoadAll(fixture_.store(), 1, "other"), Expected(content_));
  // A manifest and some records.
  EXPECT_LT(fixture_.UsedAfterCollection() - used_, 6000);
}

TEST_P(SharingTest, TheSourceMayGoFirst) {
  for (const char* into : {"m", "other"}) {
    const auto copy = Copy(fixture_.store(), 1, "", into);
    ASSERT_OK(copy.status());
  }
  ASSERT_OK(Delete("m", 1));
  (void)fixture_.UsedAfterCollection();
  EXPECT_EQ(*LoadAll(fixture_.store(), 2, "m"), Expected(content_));
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  (void)fixture_.UsedAfterCollection();
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1, "other"), Expected(content_));
}

TEST_P(SharingTest, TheCopyMayGoFirst) {
  ASSERT_OK(Copy(fixture_.store(), 1, "", "other").status());
  ASSERT_OK(fixture_.store().models().Delete("other", true, {}).status());
  EXPECT_LE(fixture_.UsedAfterCollection(), used_ + 100);
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(*LoadAll(fixture_.store(), 1), Expected(content_));
}

TEST_P(SharingTest, TheBytesGoWithTheLastThatNamesThem) {
  ASSERT_OK(Copy(fixture_.store(), 1, "", "other").status());
  const auto first = fixture_.store().checkpoints().Delete("m", 1, {});
  ASSERT_OK(first.status());
  EXPECT_EQ(first->freed_bytes, 0);
  EXPECT_EQ(first->waiting_bytes, 0);
  const auto last = fixture_.store().checkpoints().Delete("other", 1, {});
  ASSERT_OK(last.status());
  EXPECT_GE(last->freed_bytes, static_cast<int64_t>(2 * GetParam()));
  EXPECT_TRUE(fixture_.Packs().empty());
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  ASSERT_OK(fixture_.store().models().Delete("other", true, {}).status());
  EXPECT_LT(fixture_.UsedAfterCollection(), 200);
}

INSTANTIATE_TEST_SUITE_P(Sizes, SharingTest, ::testing::Values(1000, kLarge),
                         [](const auto& info) {
                           return std::string(info.param == kLarge ? "Large" : "Small");
                         });

}  // namespace
}  // namespace modelstore::storage
