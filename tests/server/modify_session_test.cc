// ModifyCheckpoint as a call: what it checks, how it ends, what it leaves.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "google/rpc/error_details.pb.h"
#include "proto/contract/limits.h"
#include "server/modify/report.h"
#include "tests/server/modify_harness.h"

namespace modelstore::server {
namespace {

using ::testing::HasSubstr;

constexpr char kOld[] = "models/m/checkpoints/1";
constexpr char kNew[] = "models/m/checkpoints/2";
constexpr char kCast[] = "edits { cast { dtype: DTYPE_BFLOAT16 } }";

class ModifySessionTest : public ModifyTest {
 protected:
  // 8 MiB, so that a cast of it is several chunks.
  ModifySessionTest() {
    for (uint32_t t = 0; t < 4; ++t) {
      content_.push_back(
          Parameter(absl::StrCat("w", t), {512, 1024}, RandomFloats(512 * 1024, t)));
    }
    auto saved = harness_.SaveTensors("models/m", content_);
    EXPECT_TRUE(saved.ok()) << saved.status();
  }
  absl::StatusOr<std::unique_ptr<OutboundSession>> Open(const std::string& text) {
    v1::ModifyCheckpointRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request));
    if (request.name().empty()) request.set_name(kOld);
    return harness_.service().OpenOutbound(absl::StrCat(kStore, "ModifyCheckpoint"),
                                           request.SerializeAsString());
  }
  int64_t UsedAfterCollection() {
    EXPECT_TRUE(harness_.store().maintenance().CollectGarbage(false, nullptr).ok());
    return harness_.disk().used_bytes();
  }

  std::vector<TestTensor> content_;
};

TEST_F(ModifySessionTest, TheNewVersionReportsWhereItComesFromAndHow) {
  ASSERT_TRUE(Modify(R"(checkpoint { epoch: 4 loss: 0.5 metrics { key: "acc" value: 0.9 }
                          labels { key: "a" value: "b" } description: "first" }
                        edits { cast { dtype: DTYPE_BFLOAT16 keys: "w0" } })")
                  .status.ok());
  const Modified modified = Modify(R"(checkpoint { loss: 0.25 description: "second"
                                        producer { library: "test" } }
                                      edits { rename_keys { pattern: "w0" replacement: "v0" } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  const v1::Checkpoint made = Full("models/m/checkpoints/3");
  EXPECT_EQ(made.origin(), v1::ORIGIN_MODIFIED);
  EXPECT_EQ(made.base_checkpoint(), kNew);
  ASSERT_EQ(made.edits_size(), 1);
  EXPECT_EQ(made.edits(0).rename_keys().replacement(), "v0");
  EXPECT_EQ(made.epoch(), 4) << "the old version's, where the request has none";
  EXPECT_EQ(made.metrics().at("acc"), 0.9);
  EXPECT_EQ(made.loss(), 0.25);
  EXPECT_EQ(made.description(), "second");
  EXPECT_TRUE(made.labels().empty());
  EXPECT_EQ(made.producer().library(), "test");
  EXPECT_EQ(modified.result.checkpoint().name(), made.name());
  EXPECT_EQ(modified.result.checkpoint().edits_size(), 1);
}

TEST_F(ModifySessionTest, RequestsThatAreNoneAreRefused) {
  struct Case {
    std::string text;
    absl::StatusCode code;
    std::string message;
  };
  std::string many;
  for (int i = 0; i < 1001; ++i) many += "edits { drop_section { section: \"x\" } } ";
  for (const Case& one : std::vector<Case>{
           {"", absl::StatusCode::kInvalidArgument, "edits: is required"},
           {"edits { }", absl::StatusCode::kInvalidArgument, "edits[0]: has no kind"},
           {many, absl::StatusCode::kInvalidArgument, "edits: has 1001, at most 1000"},
           {absl::StrCat("edits { add_prefix { prefix: \"", std::string(1 << 20, 'x'),
                         "\" } }"),
            absl::StatusCode::kInvalidArgument, "at most 1048576 are allowed"},
           {absl::StrCat("name: \"nonsense\" ", kCast),
            absl::StatusCode::kInvalidArgument, "name"},
           {absl::StrCat("name: \"models/m/checkpoints/7\" ", kCast),
            absl::StatusCode::kNotFound, "models/m/checkpoints/7"},
           {absl::StrCat("name: \"models/x/checkpoints/latest\" ", kCast),
            absl::StatusCode::kNotFound, "models/x"},
           {absl::StrCat("request_id: \"\\n\" ", kCast),
            absl::StatusCode::kInvalidArgument, "request_id"},
           {absl::StrCat("checkpoint { labels { key: \"\" } } ", kCast),
            absl::StatusCode::kInvalidArgument, "checkpoint.labels"},
           {absl::StrCat("expected_latest_version: 0 ", kCast),
            absl::StatusCode::kInvalidArgument, "expected_latest_version"},
           {absl::StrCat("expected_latest_version: 3 ", kCast),
            absl::StatusCode::kAborted, "the latest version is 1, expected was 3"}}) {
    const Modified modified = Modify(one.text);
    EXPECT_EQ(modified.status.code(), one.code) << modified.status;
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(one.message));
  }
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(ModifySessionTest, AnErrorsDetailNamesTheFieldOfTheEdit) {
  const Modified modified = Modify(absl::StrCat(
      kCast, R"( edits { drop_keys { patterns: "w0" patterns: "nothing" } })"));
  ASSERT_EQ(modified.status.code(), absl::StatusCode::kNotFound);
  const auto payload =
      modified.status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  ASSERT_TRUE(payload.has_value());
  google::rpc::BadRequest detail;
  ASSERT_TRUE(detail.ParseFromString(std::string(*payload)));
  EXPECT_EQ(detail.field_violations(0).field(), "edits[1].drop_keys.patterns[1]");
}

TEST_F(ModifySessionTest, AFailedEditLeavesNothingOfThoseBeforeIt) {
  const int64_t before = UsedAfterCollection();
  EXPECT_FALSE(Modify(absl::StrCat(kCast, R"( edits { drop_section { section: "x" } })"))
                   .status.ok());
  EXPECT_EQ(LatestVersion(), 1);
  EXPECT_EQ(UsedAfterCollection(), before);
}

TEST_F(ModifySessionTest, ValidateOnlyReportsWhatWouldBeAndChangesNothing) {
  const int64_t before = UsedAfterCollection();
  const Modified checked = Modify(absl::StrCat("validate_only: true ", kCast));
  ASSERT_TRUE(checked.status.ok()) << checked.status;
  EXPECT_EQ(checked.result.checkpoint().name(), "");
  EXPECT_EQ(checked.result.checkpoint().version(), 0);
  EXPECT_EQ(checked.result.checkpoint().edits_size(), 1);
  EXPECT_EQ(checked.result.checkpoint().base_checkpoint(), kOld);
  EXPECT_EQ(checked.result.new_tensor_bytes(), 4 << 20);
  EXPECT_EQ(LatestVersion(), 1);
  EXPECT_EQ(UsedAfterCollection(), before);
  const Modified done = Modify(kCast);
  EXPECT_EQ(done.report.SerializeAsString(), checked.report.SerializeAsString());
  EXPECT_FALSE(
      Modify("validate_only: true edits { cast { dtype: DTYPE_INT8 } }").status.ok());
}

TEST_F(ModifySessionTest, TheSameRequestMakesOneVersionAndAnotherOfItsIdIsRefused) {
  const std::string request = absl::StrCat("request_id: \"r\" ", kCast);
  const Modified first = Modify(request);
  ASSERT_TRUE(first.status.ok()) << first.status;
  // `latest` is another version by now, and it is the same request all the same.
  const Modified again = Modify(request);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.result.checkpoint().name(), kNew);
  EXPECT_EQ(again.result.checkpoint().edits_size(), 1);
  EXPECT_EQ(again.result.stored_bytes(), first.result.stored_bytes());
  EXPECT_EQ(LatestVersion(), 2);
  const Modified other =
      Modify("request_id: \"r\" edits { cast { dtype: DTYPE_FLOAT16 } }");
  EXPECT_EQ(other.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.status.message()), HasSubstr("request_id"));
  // What it was made from need not be there any more.
  ASSERT_TRUE(harness_.store().checkpoints().Delete("m", 1, {}).ok());
  EXPECT_EQ(Modify(request).result.checkpoint().name(), kNew);
}

TEST_F(ModifySessionTest, ManyAtOnceWithOneRequestIdMakeOneVersion) {
  std::vector<std::thread> callers;
  std::atomic<int> made{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      const Modified modified =
          Modify(absl::StrCat("name: \"", kOld, "\" request_id: \"r\" ", kCast));
      EXPECT_TRUE(modified.status.ok()) << modified.status;
      if (modified.result.checkpoint().name() == kNew) ++made;
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(made, 4);
  EXPECT_EQ(LatestVersion(), 2);
}

TEST_F(ModifySessionTest, ConcurrentModificationsEachMakeAVersion) {
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      EXPECT_TRUE(Modify(absl::StrCat("name: \"", kOld, "\" ", kCast)).status.ok());
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(LatestVersion(), 5);
  EXPECT_EQ(Bytes("models/m/checkpoints/5"), Bytes(kNew));
}

// An average of many is work for several steps.
TEST_F(ModifySessionTest, CancelledAtAnyStepItLeavesNothing) {
  std::string average = "edits { average { ";
  for (int c = 0; c < 250; ++c) absl::StrAppend(&average, "checkpoints: \"", kOld, "\" ");
  average += "} }";
  const int64_t before = UsedAfterCollection();
  int cancelled = 0;
  for (int steps = 0;; ++steps) {
    auto session = Open(average);
    ASSERT_TRUE(session.ok()) << session.status();
    for (int s = 0; s < steps && LatestVersion() == 1; ++s) {
      auto message = (*session)->Next();
      ASSERT_TRUE(message.ok()) << message.status();
      absl::SleepFor((*message)->again_after.value_or(absl::ZeroDuration()));
    }
    if (LatestVersion() != 1) break;
    // Every other time without a word, as by a client that is gone.
    if (steps % 2 == 0) {
      (*session)->Cancel();
      const absl::Status status = ReadToEnd(**session);
      EXPECT_EQ(status.ok(), LatestVersion() != 1) << status;
      if (!status.ok()) {
        EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      }
    }
    session->reset();
    // A commit that has begun is not stopped.
    if (LatestVersion() != 1) break;
    ++cancelled;
    EXPECT_EQ(UsedAfterCollection(), before) << steps;
  }
  EXPECT_GT(cancelled, 2) << "the work was over too soon to be cancelled";
}

TEST_F(ModifySessionTest, AStepIsSharedOutToAsManyThreadsAsThereAreCores) {
  ServiceOptions options;
  int shared_out = 0, most = 0;
  options.for_each = [&](int count, const std::function<void(int)>& each) {
    ++shared_out;
    most = std::max(most, count);
    std::vector<std::thread> threads;
    for (int i = 0; i < count; ++i) threads.emplace_back([&each, i] { each(i); });
    for (std::thread& thread : threads) thread.join();
  };
  const auto service = MakeService(&harness_.store(), options);
  v1::ModifyCheckpointRequest request;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(kCast, &request));
  request.set_name(kOld);
  auto session = service->OpenOutbound(absl::StrCat(kStore, "ModifyCheckpoint"),
                                       request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  for (;;) {
    auto message = (*session)->Next();
    ASSERT_TRUE(message.ok()) << message.status();
    if (!message->has_value()) break;
  }
  EXPECT_GT(shared_out, 0);
  EXPECT_EQ(most, std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  // The same as on one thread.
  request.set_name(kOld);
  ASSERT_TRUE(RunModify(harness_, request).status.ok());
  EXPECT_EQ(Bytes(kNew), Bytes("models/m/checkpoints/3"));
}

TEST_F(ModifySessionTest, TheSourceMayBeDeletedWhileItRuns) {
  auto session =
      Open(absl::StrCat("edits { cast { dtype: DTYPE_BFLOAT16 keys: \"w0\" } }"));
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(harness_.store().checkpoints().Delete("m", 1, {}).ok());
  UsedAfterCollection();
  const absl::Status status = ReadToEnd(**session);
  ASSERT_TRUE(status.ok()) << status;
  session->reset();
  UsedAfterCollection();
  EXPECT_EQ(LatestVersion(), 2);
  auto made = Bytes(kNew);
  EXPECT_EQ(made["model:w3"], content_[3].bytes);
  EXPECT_EQ(made["model:w0"].size(), content_[0].bytes.size() / 2);
}

TEST_F(ModifySessionTest, AFullDiskLeavesNothingAndStopsNothingForGood) {
  const int64_t before = UsedAfterCollection();
  harness_.disk().SetCapacity(before + (1 << 20));
  const Modified full = Modify(kCast);
  EXPECT_EQ(full.status.code(), absl::StatusCode::kResourceExhausted) << full.status;
  EXPECT_EQ(LatestVersion(), 1);
  EXPECT_EQ(UsedAfterCollection(), before);
  harness_.disk().SetCapacity(0);
  EXPECT_TRUE(Modify(kCast).status.ok());
}

TEST_F(ModifySessionTest, DamagedBytesAreNamedAndNeverShared) {
  {
    auto read = harness_.store().reads().Open("m", 1);
    ASSERT_TRUE(read.ok()) << read.status();
    const auto& piece = (*read)->manifest().tensors(2).pieces(0);
    ASSERT_TRUE(harness_.disk().FlipBit(piece.packs(0), piece.sequences(0), 100));
  }
  const int64_t before = UsedAfterCollection();
  const Modified cast = Modify(kCast);
  EXPECT_EQ(cast.status.code(), absl::StatusCode::kDataLoss) << cast.status;
  EXPECT_THAT(std::string(cast.status.message()), HasSubstr("model:w2"));
  EXPECT_LT(UsedAfterCollection(), before + 100) << "more than a note of the damage";
  // Once it is known, an edit that only shares the tensor is refused as well; one that
  // leaves it out is not.
  const Modified other = Modify(R"(edits { cast { dtype: DTYPE_BFLOAT16 keys: "w1" } })");
  EXPECT_EQ(other.status.code(), absl::StatusCode::kDataLoss) << other.status;
  EXPECT_THAT(std::string(other.status.message()), HasSubstr("model:w2"));
  const Modified without = Modify(R"(edits { drop_keys { patterns: "w2" } })");
  EXPECT_TRUE(without.status.ok()) << without.status;
}

TEST_F(ModifySessionTest, ALongReportComesInPartsOfAtMostOneMebibyte) {
  std::vector<TestTensor> many;
  for (int t = 0; t < 3000; ++t) {
    many.push_back(Parameter(absl::StrCat(std::string(500, 'k'), t), {1}, {1.0f}));
  }
  auto saved = harness_.SaveTensors("models/many", many);
  ASSERT_TRUE(saved.ok()) << saved.status();
  const Modified modified = Modify(R"(name: "models/many/checkpoints/1"
                                      edits { add_prefix { prefix: "p." } })");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.report.parameters_size(), 3000);
  EXPECT_GT(modified.report_messages, 1);
  EXPECT_LE(modified.longest_message, static_cast<size_t>(kMaxManifestMessageBytes));
}

TEST(ModifyResultTest, AResultThatIsTooLargeForAMessageLeavesOutTextsAndSaysSo) {
  v1::ModifyCheckpointResponse::Result result;
  result.mutable_checkpoint()->set_name("models/m/checkpoints/2");
  result.set_architecture_before("small");
  modify::FitResult(result);
  EXPECT_EQ(result.omitted_size(), 0);
  result.set_architecture_before(std::string(3 << 20, 'b'));
  result.set_architecture_after(std::string(2 << 20, 'a'));
  modify::FitResult(result);
  EXPECT_THAT(result.omitted(), testing::ElementsAre("architecture_before"));
  EXPECT_EQ(result.architecture_after().size(), size_t{2} << 20);
  EXPECT_EQ(result.checkpoint().name(), "models/m/checkpoints/2");
}

}  // namespace
}  // namespace modelstore::server
