// The background scrub: reads everything there is, names what is damaged, and lets
// nobody wait.
#include "server/background/scrub.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = 1 << 20;

class ScrubTest : public testing::Test {
 protected:
  // 3 MiB in chunks of 1 MiB, of one seed each.
  void Save(const std::string& model, std::vector<uint32_t> seeds) {
    std::string bytes;
    for (const uint32_t seed : seeds) bytes += MakeBytes(kMiB, seed);
    auto saved = harness_.SaveTensors(
        absl::StrCat("models/", model),
        {MakeTensor("w", v1::DTYPE_UINT8, {static_cast<int64_t>(bytes.size())}, bytes,
                    kMiB),
         MakeTensor("empty", v1::DTYPE_INT64, {0, 4}, "")});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }

  // Scrubs until `condition` holds; returns what was logged.
  std::string ScrubUntil(const std::function<bool()>& condition,
                         int64_t bytes_per_second = int64_t{1} << 30,
                         absl::Duration period = absl::Hours(1)) {
    testing::internal::CaptureStderr();
    {
      const Log log(LogLevel::kInfo, LogFormat::kText);
      const Scrub scrub(&harness_.store(), &log, gauges_,
                        {bytes_per_second, period, absl::ZeroDuration()});
      EXPECT_TRUE(Eventually(condition));
    }
    return testing::internal::GetCapturedStderr();
  }
  bool Passed() const { return gauges_->last_scrub_time_us > 0; }

  Harness harness_;
  std::shared_ptr<Gauges> gauges_ = std::make_shared<Gauges>();
};

TEST_F(ScrubTest, APassReadsEveryByteOfEveryModelOnce) {
  Save("a", {1, 2, 3});
  Save("a", {1, 2, 4});  // shares two chunks with the version before
  Save("b", {5, 6, 7});
  const std::string log = ScrubUntil([&] { return Passed(); });
  EXPECT_EQ(gauges_->scrubbed_bytes, 7 * kMiB);
  EXPECT_EQ(gauges_->scrub_damaged_tensors, 0);
  EXPECT_THAT(log, HasSubstr("event=scrub "));
  EXPECT_THAT(log, HasSubstr("checkpoints=3"));
  EXPECT_THAT(log, Not(HasSubstr("scrub_damage")));
}

TEST_F(ScrubTest, EveryDamagedTensorIsNamedAlsoWhereVersionsShareTheChunk) {
  Save("a", {1, 2, 3});
  Save("a", {1, 2, 4});
  Save("b", {5, 6, 7});
  harness_.Damage("a", 1, "w", 1);
  const std::string log = ScrubUntil([&] { return Passed(); });
  EXPECT_EQ(gauges_->scrub_damaged_tensors, 2);
  EXPECT_THAT(log, HasSubstr("scrub_damage"));
  EXPECT_THAT(log, HasSubstr("models/a/checkpoints/1"));
  EXPECT_THAT(log, HasSubstr("models/a/checkpoints/2"));
  EXPECT_THAT(log, HasSubstr("model:w"));
  EXPECT_THAT(log, Not(HasSubstr("models/b/")));
  EXPECT_THAT(log, HasSubstr("damaged_tensors=2"));
}

TEST_F(ScrubTest, DamagedChunksAreStoredAgainByTheNextSave) {
  Save("a", {1, 2, 3});
  harness_.Damage("a", 1, "w", 1);
  ScrubUntil([&] { return Passed(); });
  Save("a", {1, 2, 3});
  auto saved = harness_.store().checkpoints().Get("a", 2);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->stored_bytes(), kMiB);
  EXPECT_EQ(saved->damaged_base_bytes(), kMiB);
  v1::LoadCheckpointRequest request;
  request.set_name("models/a/checkpoints/2");
  auto loaded = harness_.Load(request);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->Of("w"),
            MakeBytes(kMiB, 1) + MakeBytes(kMiB, 2) + MakeBytes(kMiB, 3));
}

TEST_F(ScrubTest, APlaceThatTheDiskCannotReadIsReportedAndPassedOver) {
  Save("a", {1, 2, 3});
  Save("b", {5, 6, 7});
  harness_.BreakSector("a", 1, "w", 1);
  const std::string log = ScrubUntil([&] { return Passed(); });
  EXPECT_EQ(gauges_->scrubbed_bytes, 5 * kMiB);
  EXPECT_EQ(gauges_->scrub_damaged_tensors, 0);
  EXPECT_THAT(log, HasSubstr("event=scrub_unread"));
  EXPECT_THAT(log, HasSubstr("models/a/checkpoints/1"));
  EXPECT_THAT(log, HasSubstr("unread_tensors=1"));
  EXPECT_THAT(log, Not(HasSubstr("models/b/")));
}

TEST_F(ScrubTest, OnePassFollowsTheOther) {
  Save("a", {1, 2, 3});
  ScrubUntil([&] { return gauges_->scrubbed_bytes >= 6 * kMiB; }, int64_t{1} << 30,
             absl::Milliseconds(1));
}

TEST_F(ScrubTest, ItKeepsToItsRateAndHoldsNoDeletedCheckpointThroughItsWaits) {
  Save("a", {1, 2, 3});
  Save("b", {5, 6, 7});
  // 5 s a chunk: longer than a checkpoint is held.
  ScrubUntil(
      [&] {
        if (gauges_->scrubbed_bytes == 0) return false;
        absl::SleepFor(absl::Milliseconds(200));
        EXPECT_EQ(gauges_->scrubbed_bytes, kMiB);
        EXPECT_TRUE(harness_.store().models().Delete("a", true, {}).ok());
        return true;
      },
      kMiB / 5);
}

TEST_F(ScrubTest, APassOutlivesTheDeletionOfWhatItReads) {
  for (int i = 0; i < 8; ++i) {
    const auto seed = static_cast<uint32_t>(10 * i);
    Save(absl::StrCat("m", i), {seed + 1, seed + 2, seed + 3});
  }
  int deleted = 0;
  const std::string log = ScrubUntil(
      [&] {
        if (deleted < 8 && gauges_->scrubbed_bytes > 0) {
          EXPECT_TRUE(harness_.store()
                          .models()
                          .Delete(absl::StrCat("m", deleted), true, {})
                          .ok());
          ++deleted;
        }
        return Passed();
      },
      64 * kMiB);
  EXPECT_EQ(gauges_->scrub_damaged_tensors, 0) << log;
  EXPECT_GT(deleted, 0);
}

TEST(ScrubServerTest, GetStatsReportsHowFarItIs) {
  ServerConfig config = TestConfig();
  config.scrub_period = absl::Milliseconds(50);
  config.scrub_bytes_per_second = int64_t{1} << 30;
  GrpcHarness harness(config);
  harness.SaveModel("models/m", 3);
  EXPECT_TRUE(Eventually([&] {
    const v1::Stats stats = harness.Stats();
    return stats.scrubbed_bytes() >= 3 << 20 && stats.has_last_scrub_time();
  }));
  EXPECT_EQ(harness.Stats().scrub_damaged_tensors(), 0);
}

}  // namespace
}  // namespace modelstore::server
