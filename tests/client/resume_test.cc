// Transfers whose connection is cut, stalls or lies, and whose server restarts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/logging.h"
#include "modelstore/inspect.h"
#include "modelstore/modify.h"
#include "modelstore/retention.h"
#include "modelstore/v1/operations.pb.h"
#include "tests/client/hooked_connection.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

using support::RandomBytes;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

TensorSet State(uint64_t seed = 1) {
  return TensorSet({.seed = seed, .tensors = 10, .bytes = 20 * kMiB});
}

ConnectOptions OneStream() {
  ConnectOptions options = support::ImpatientOptions();
  options.streams = 1;
  return options;
}

ConnectOptions WithoutRetries() {
  ConnectOptions options = OneStream();
  options.retry_timeout = std::chrono::milliseconds(0);
  return options;
}

// Saves with the connection cut at message n = 1, 2, ... until a save has no
// n-th message.
void CutEveryMessageOfASave(const TensorSet& state, bool deliver_cut) {
  for (int n = 1;; ++n) {
    TestStore store;
    Client client = store.NewClient();
    store.connection().SetFaults({.cut_at = n, .deliver_cut = deliver_cut});
    auto info = support::Save(client, "models/m", state);
    ASSERT_TRUE(info.ok()) << "cut at " << n << ": " << info.status();
    const int64_t messages = store.connection().messages();
    store.connection().SetFaults({});
    EXPECT_EQ(support::Verify(client, info->name, state), absl::OkStatus()) << n;
    EXPECT_EQ(client.ListCheckpoints("models/m")->size(), 1u) << n;
    if (messages < n) {
      std::printf("cut at each of %d messages\n", n - 1);
      break;
    }
  }
}

TEST(ResumeTest, AnUploadCutAtEveryMessageIsResumed) {
  CutEveryMessageOfASave(State(), false);
}

TEST(ResumeTest, AnUploadCutAfterEveryMessageIsResumed) {
  CutEveryMessageOfASave(State(), true);
}

TEST(ResumeTest, ASmallSaveCutAtEveryMessageIsRepeated) {
  const TensorSet small({.seed = 3, .tensors = 3, .bytes = 5000});
  CutEveryMessageOfASave(small, false);
  CutEveryMessageOfASave(small, true);
}

TEST(ResumeTest, AResumedUploadSendsOnlyWhatIsMissing) {
  TestStore store(OneStream());
  Client client = store.NewClient();
  TensorSet state;
  TensorInfo info;
  info.key = "w";
  info.dtype = DType::kUint8;
  info.shape = {60 * kMiB};
  state.Add(info, RandomBytes(1, 60 * kMiB));
  store.connection().SetFaults({.cut_at = 14});
  const SaveHandle handle = client.SaveAsync("models/m", state.Content());
  ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
  // What is sent again is the message that was cut.
  EXPECT_LE(handle.progress().transferred_bytes, 65 * kMiB);
  EXPECT_GE(handle.progress().reconnects, 1);
  EXPECT_EQ(handle.progress().done_bytes, 60 * kMiB);
}

TEST(ResumeTest, ADownloadCutAtEveryMessageIsResumed) {
  // Of one stream every message, of two that share a load every fifth.
  for (const int streams : {1, 2}) {
    ConnectOptions options = support::ImpatientOptions();
    options.streams = streams;
    TestStore store(options);
    Client client = store.NewClient();
    const int64_t bytes = streams == 1 ? 24 * kMiB : 72 * kMiB;
    const TensorSet state({.seed = 2, .tensors = 12, .bytes = bytes});
    auto info = support::Save(client, "models/m", state);
    ASSERT_TRUE(info.ok()) << info.status();
    for (int n = 1;; n += streams == 1 ? 1 : 5) {
      store.connection().SetFaults({.cut_at = n});
      ASSERT_EQ(support::Verify(client, info->name, state), absl::OkStatus()) << n;
      if (store.connection().messages() < n) break;
    }
  }
}

TEST(ResumeTest, ADownloadCutAgainAndAgainComesToItsEnd) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = State();
  auto info = support::Save(client, "models/m", state);
  ASSERT_TRUE(info.ok()) << info.status();
  store.connection().SetFaults({.cut_at = 4, .cut_every = 4});
  EXPECT_EQ(support::Verify(client, info->name, state), absl::OkStatus());
}

TEST(ResumeTest, StalledTransfersAreCutAndResumed) {
  ConnectOptions options = support::ImpatientOptions();
  options.stall_timeout = std::chrono::milliseconds(100);
  TestStore store(options);
  Client client = store.NewClient();
  const TensorSet state = State();
  store.connection().SetFaults({.stall_at = 3});
  auto info = support::Save(client, "models/m", state);
  ASSERT_TRUE(info.ok()) << info.status();
  for (const int n : {1, 2, 3, 4, 6}) {
    store.connection().SetFaults({.stall_at = n});
    EXPECT_EQ(support::Verify(client, info->name, state), absl::OkStatus()) << n;
  }
}

// Restarts the server as soon as n messages have passed.
class RestartAt {
 public:
  RestartAt(TestStore* store, int64_t n)
      : thread_([this, store, n] {
          store->connection().SetFaults({});
          ready_ = true;
          while (!stop_ && store->connection().messages() < n) std::this_thread::yield();
          store->Restart();
        }) {
    while (!ready_) std::this_thread::yield();
  }
  ~RestartAt() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> ready_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST(ResumeTest, AnUploadOutlivesRestartsOfTheServer) {
  for (const int n : {1, 2, 4, 7}) {
    TestStore store;
    Client client = store.NewClient();
    const TensorSet state = State(n);
    absl::StatusOr<CheckpointInfo> info = absl::UnknownError("");
    {
      RestartAt restart(&store, n);
      info = support::Save(client, "models/m", state);
    }
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(support::Verify(client, info->name, state), absl::OkStatus());
    EXPECT_EQ(client.ListCheckpoints("models/m")->size(), 1u);
  }
}

TEST(ResumeTest, ADownloadOutlivesRestartsOfTheServer) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = State();
  auto info = support::Save(client, "models/m", state);
  ASSERT_TRUE(info.ok()) << info.status();
  for (const int n : {1, 2, 4, 7}) {
    RestartAt restart(&store, n);
    EXPECT_EQ(support::Verify(client, info->name, state), absl::OkStatus()) << n;
  }
}

// A plan of all tensors, each bound to memory of its own.
struct Bound {
  LoadPlan plan;
  std::vector<std::string> bytes;
};

Bound PlanAndBind(Client& client, const std::string& name) {
  auto plan = client.PlanLoad(name);
  EXPECT_TRUE(plan.ok()) << plan.status();
  Bound bound{*std::move(plan), {}};
  const size_t count = bound.plan.tensors().size();
  bound.bytes.resize(count);
  for (size_t i = 0; i < count; ++i) {
    bound.bytes[i].assign(bound.plan.tensors()[i].size_bytes, '\xA5');
    EXPECT_TRUE(
        bound.plan.Bind(i, {bound.bytes[i].data(), bound.bytes[i].size(), nullptr}).ok());
  }
  return bound;
}

TEST(ResumeTest, APlanOutlivesTheServersMemoryOfIt) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = State();
  auto info = support::Save(client, "models/m", state);
  ASSERT_TRUE(info.ok()) << info.status();
  Bound bound = PlanAndBind(client, info->name);
  store.Restart();
  EXPECT_EQ(bound.plan.Run(TestDeadline()), absl::OkStatus());
  for (size_t i = 0; i < bound.bytes.size(); ++i) {
    EXPECT_EQ(bound.bytes[i], *state.entries()[i].bytes);
    EXPECT_TRUE(bound.plan.done(i));
  }
  EXPECT_GE(bound.plan.progress().reconnects, 1);
}

TEST(ResumeTest, AnotherCheckpointOfTheSameNameIsNotTakenForTheOnePlanned) {
  TestStore store;
  Client client = store.NewClient();
  ASSERT_TRUE(support::Save(client, "models/m", State(1)).ok());
  Bound bound = PlanAndBind(client, "models/m/checkpoints/1");
  ASSERT_EQ(client.DeleteModel("models/m", {.force = true}), absl::OkStatus());
  ASSERT_TRUE(support::Save(client, "models/m", State(2)).ok());
  store.Restart();
  const absl::Status s = bound.plan.Run(TestDeadline());
  EXPECT_EQ(s.code(), absl::StatusCode::kAborted) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("replaced"));
}

TEST(ResumeTest, ALoadCutForGoodReportsTrulyWhatItDid) {
  TestStore store(WithoutRetries());
  Client client = store.NewClient();
  const TensorSet state = State();
  auto info = support::Save(client, "models/m", state);
  ASSERT_TRUE(info.ok()) << info.status();
  int seen_done = 0;
  int seen_untouched = 0;
  for (int n = 2;; ++n) {
    Bound bound = PlanAndBind(client, info->name);
    store.connection().SetFaults({.cut_at = n});
    const absl::Status s = bound.plan.Run(TestDeadline());
    if (s.ok()) break;
    EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable) << s;
    for (size_t i = 0; i < bound.bytes.size(); ++i) {
      const std::string& expected = *state.entries()[i].bytes;
      if (expected.empty()) continue;
      if (bound.plan.done(i)) {
        EXPECT_EQ(bound.bytes[i], expected);
        EXPECT_TRUE(bound.plan.touched(i));
        ++seen_done;
      } else if (!bound.plan.touched(i)) {
        EXPECT_EQ(bound.bytes[i], std::string(expected.size(), '\xA5'));
        ++seen_untouched;
      }
    }
  }
  EXPECT_GT(seen_done, 0);
  EXPECT_GT(seen_untouched, 0);
}

TEST(ResumeTest, BytesDamagedOnTheWayAreFetchedAgain) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = State();
  auto info = support::Save(client, "models/m", state);
  ASSERT_TRUE(info.ok()) << info.status();
  std::atomic<int> damaged{0};
  store.connection().SetFaults({.tamper = [&](std::string* message) {
    if (message->size() > 50'000 && damaged++ == 0) message->back() ^= 1;
  }});
  EXPECT_EQ(support::Verify(client, info->name, state), absl::OkStatus());
  EXPECT_GE(damaged, 2);
}

TEST(ResumeTest, AServerThatLiesIsDataLossNamingTheTensor) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet state;
  TensorInfo info;
  info.key = "features.0.weight";
  info.dtype = DType::kUint8;
  info.shape = {3 * kMiB};
  state.Add(info, RandomBytes(1, 3 * kMiB));
  auto saved = support::Save(client, "models/m", state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  store.connection().SetFaults({.tamper = [&](std::string* message) {
    if (message->size() > 50'000) (*message)[message->size() / 2] ^= 0x40;
  }});
  const absl::Status s = support::Load(client, saved->name).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kDataLoss) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("model:features.0.weight"));
  EXPECT_THAT(std::string(s.message()), HasSubstr(saved->name));
}

TEST(ResumeTest, MessagesOfRubbishAreErrorsAndNothingWorse) {
  TestStore store(WithoutRetries());
  Client client = store.NewClient();
  const TensorSet state({.seed = 9, .tensors = 4, .bytes = 200'000});
  auto saved = support::Save(client, "models/m", state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  std::mt19937_64 random(TestSeed());
  google::protobuf::LogSilencer silence;
  int errors = 0;
  for (int round = 0; round < 200; ++round) {
    store.connection().SetFaults({.tamper = [&](std::string* message) {
      // The head of the message, where sizes and positions are.
      for (int i = 0; i < 3; ++i) {
        (*message)[random() % std::min<size_t>(message->size(), 80)] = random();
      }
      if (random() % 4 == 0) message->resize(random() % message->size());
    }});
    auto loaded = support::Load(client, saved->name);
    if (!loaded.ok()) ++errors;
  }
  EXPECT_GT(errors, 100);
  store.connection().SetFaults({});
  EXPECT_EQ(support::Verify(client, saved->name, state), absl::OkStatus());
}

TEST(ResumeTest, AServerThatStaysAwayIsGivenUp) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = std::chrono::milliseconds(200);
  TestStore store(options);
  Client client = store.NewClient();
  ASSERT_TRUE(support::Save(client, "models/m", State()).ok());
  Bound bound = PlanAndBind(client, "models/m/checkpoints/1");
  store.Stop();
  EXPECT_EQ(bound.plan.Run(TestDeadline()).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(client.PlanLoad("models/m/checkpoints/1").status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(support::Save(client, "models/m", State()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(client.GetModel("models/m").status().code(), absl::StatusCode::kUnavailable);
  store.Start();
  EXPECT_TRUE(client.GetModel("models/m").ok());
}

// As of a server that the call itself crashes.
TEST(ResumeTest, ACallThatBreaksAtTheSamePlaceEachTimeIsGivenUp) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = std::chrono::milliseconds(200);
  TestStore store(options);
  Client writer = store.NewClient();
  ASSERT_TRUE(support::Save(writer, "models/m", State()).ok());
  Client client(std::make_shared<support::HookedConnection>(
      store.connection(), nullptr, [](std::string_view method) {
        std::string message;
        if (method == "ModifyCheckpoint") {
          v1::ModifyCheckpointResponse response;
          response.mutable_progress()->set_done_bytes(1);
          message = response.SerializeAsString();
        } else if (method == "VerifyCheckpoint") {
          v1::VerifyCheckpointResponse response;
          response.mutable_progress()->set_verified_bytes(1);
          message = response.SerializeAsString();
        } else {
          v1::PruneCheckpointsResponse response;
          response.mutable_progress()->set_checked_checkpoints(1);
          message = response.SerializeAsString();
        }
        return std::make_unique<support::ScriptedStream>(
            std::vector<std::string>{message}, absl::UnavailableError("crashed"));
      }));
  const std::string name = "models/m/checkpoints/1";
  const Deadline deadline = After(std::chrono::seconds(5));
  for (const absl::Status& s :
       {ModifyCheckpoint(client, name, EditList().AddPrefix("a."), {.deadline = deadline})
            .status(),
        VerifyCheckpoint(client, name, {.deadline = deadline}).status(),
        PruneCheckpoints(client, "models/m", {.deadline = deadline}).status()}) {
    EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable) << s;
    EXPECT_THAT(std::string(s.message()), HasSubstr("given up after 200 ms"));
  }
}

TEST(ResumeTest, ARunEndsAtItsDeadline) {
  TestStore store;
  Client client = store.NewClient();
  ASSERT_TRUE(support::Save(client, "models/m", State()).ok());
  Bound bound = PlanAndBind(client, "models/m/checkpoints/1");
  store.connection().Pause();
  EXPECT_EQ(bound.plan.Run(After(std::chrono::milliseconds(100))).code(),
            absl::StatusCode::kDeadlineExceeded);
  store.connection().Resume();
}

}  // namespace
}  // namespace modelstore
