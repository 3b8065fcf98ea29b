// What expires, expires by elapsed time: steps of the wall clock change nothing.
#include "storage/store_clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

constexpr absl::Duration kYear = absl::Hours(24 * 365);

class StoreClockTest : public ::testing::Test {
 protected:
  StoreClockTest() {
    fixture_.options().grace = absl::Minutes(1);
    EXPECT_OK(fixture_.Reopen());
    EXPECT_OK(SaveOneShot(fixture_.store(), RandomContent(1, 2, 1 << 20)).status());
    EXPECT_OK(SaveOneShot(fixture_.store(), RandomContent(2, 2, 1 << 20)).status());
  }

  // An upload, a lease and the bytes of a deleted version, all over in two hours.
  void StartWhatExpires() {
    SaveRequest request;
    request.model_id = "m";
    upload_ = fixture_.store().uploads().Create(request, 1, absl::Hours(1))->upload_id();
    auto lease = fixture_.store().leases().Acquire("m", 2, "worker", absl::Hours(1));
    ASSERT_OK(lease.status());
    lease_ = lease->record;
    ASSERT_OK(fixture_.store().checkpoints().Delete("m", 1, {}).status());
  }
  int64_t WaitingBytes() {
    const auto result =
        fixture_.store().maintenance().CollectGarbage(/*validate_only=*/false, nullptr);
    EXPECT_OK(result.status());
    return result->waiting_bytes;
  }
  bool IsLeased() {
    return !fixture_.store().leases().List("m", {}, "", 10)->items.empty();
  }
  bool HasUpload() {
    return NamedUpload(fixture_.store().uploads(), "m", upload_).State().ok();
  }

  void ExpectAllThere() {
    EXPECT_GT(WaitingBytes(), 0);
    EXPECT_TRUE(IsLeased());
    EXPECT_TRUE(HasUpload());
  }
  void ExpectAllGone() {
    EXPECT_EQ(WaitingBytes(), 0);
    EXPECT_FALSE(IsLeased());
    EXPECT_FALSE(HasUpload());
  }

  StoreFixture fixture_;
  std::string upload_;
  v1::LeaseRecord lease_;
};

TEST_F(StoreClockTest, AStepForwardExpiresNothing) {
  StartWhatExpires();
  fixture_.StepWall(kYear);
  ExpectAllThere();
  fixture_.Advance(absl::Hours(2));
  ExpectAllGone();
}

TEST_F(StoreClockTest, AStepBackwardStopsNothing) {
  StartWhatExpires();
  fixture_.StepWall(-kYear);
  ExpectAllThere();
  fixture_.Advance(absl::Hours(2));
  ExpectAllGone();
}

class StepTest : public StoreClockTest, public ::testing::WithParamInterface<int> {};

TEST_P(StepTest, WhileTheServerRunsIsNotTakenOverByARestart) {
  StartWhatExpires();
  fixture_.StepWall(GetParam() * kYear);
  ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
  ASSERT_OK(fixture_.Reopen());
  EXPECT_TRUE(IsLeased());
  EXPECT_TRUE(HasUpload());
  fixture_.Advance(absl::Hours(2));
  ExpectAllGone();
}

INSTANTIATE_TEST_SUITE_P(Both, StepTest, ::testing::Values(1, -1), [](const auto& years) {
  return years.param > 0 ? "Forward" : "Backward";
});

TEST_F(StoreClockTest, AStepBackwardWhileTheServerIsDownStopsNothing) {
  StartWhatExpires();
  ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
  fixture_.StepWall(-kYear);
  ASSERT_OK(fixture_.Reopen());
  EXPECT_TRUE(IsLeased());
  fixture_.Advance(absl::Hours(2));
  ExpectAllGone();
}

TEST_F(StoreClockTest, TimeThatPassedWhileTheServerWasDownCounts) {
  StartWhatExpires();
  ASSERT_OK(fixture_.store().maintenance().ReopenIfClosed());
  fixture_.Advance(absl::Hours(2));
  ASSERT_OK(fixture_.Reopen());
  ExpectAllGone();
}

TEST_F(StoreClockTest, ExpiriesAreShownByTheWallClock) {
  StartWhatExpires();
  const int64_t before = lease_.expire_time_us();
  EXPECT_EQ(before, lease_.create_time_us() + absl::ToInt64Microseconds(absl::Hours(1)));
  fixture_.StepWall(kYear);
  const int64_t year = absl::ToInt64Microseconds(kYear);
  const auto leases = fixture_.store().leases().List("m", {}, "", 10);
  ASSERT_OK(leases.status());
  EXPECT_EQ(leases->items[0].record.expire_time_us(), before + year);
  const auto upload = NamedUpload(fixture_.store().uploads(), "m", upload_).State();
  ASSERT_OK(upload.status());
  EXPECT_EQ(upload->record.expire_time_us(), before + year);
}

}  // namespace
}  // namespace modelstore::storage
