// Saves in the background: when the caller may go on, and who hears of failures.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/internal/save_state.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::RandomBytes;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = int64_t{1} << 20;

Deadline ShortDeadline() { return After(std::chrono::milliseconds(50)); }

// One tensor in memory of its own that the test changes.
struct Live {
  explicit Live(int64_t size, uint64_t seed = 1) : bytes(RandomBytes(seed, size)) {}

  SaveContent Content() const {
    TensorView view;
    view.info.key = "w";
    view.info.dtype = DType::kUint8;
    view.info.shape = {static_cast<int64_t>(bytes.size())};
    view.info.size_bytes = static_cast<int64_t>(bytes.size());
    view.data = bytes.data();
    SaveContent content;
    content.tensors = {view};
    return content;
  }

  std::string bytes;
};

std::string Stored(Client& client, const std::string& name) {
  auto loaded = support::Load(client, name);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? loaded->at("model:w") : "";
}

TEST(AsyncTest, TheValuesAreThoseAtTheCall) {
  for (const int64_t size : {int64_t{1000}, 5 * kMiB + 3}) {
    TestStore store;
    Client client = store.NewClient();
    Live live(size);
    const std::string before = live.bytes;
    store.connection().Pause();
    const SaveHandle handle = client.SaveAsync("models/m", live.Content());
    ASSERT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
    live.bytes.assign(live.bytes.size(), 'x');
    store.connection().Resume();
    auto info = handle.Durable(TestDeadline());
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(Stored(client, info->name), before);
  }
}

TEST(AsyncTest, StagedDoesNotWaitForTheServer) {
  TestStore store;
  Client client = store.NewClient();
  Live live(2 * kMiB);
  store.connection().Pause();
  const SaveHandle handle = client.SaveAsync("models/m", live.Content());
  EXPECT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(handle.Durable(ShortDeadline()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  store.connection().Resume();
  EXPECT_TRUE(handle.Durable(TestDeadline()).ok());
}

TEST(AsyncTest, WithALimitOnStagingStagedWaitsForWhatWasNotCopied) {
  TestStore store;
  Client client = store.NewClient();
  Live live(6 * kMiB);
  const std::string before = live.bytes;
  store.connection().Pause();
  SaveOptions options;
  options.max_staging_bytes = 2 * kMiB;
  const SaveHandle handle = client.SaveAsync("models/m", live.Content(), options);
  EXPECT_EQ(handle.Staged(ShortDeadline()).code(), absl::StatusCode::kDeadlineExceeded);
  store.connection().Resume();
  ASSERT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
  live.bytes.assign(live.bytes.size(), 'x');
  auto info = handle.Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(Stored(client, info->name), before);
}

TEST(AsyncTest, TheOwnerOfACopiedTensorIsReleasedOnceStaged) {
  TestStore store;
  Client client = store.NewClient();
  auto owned = std::make_shared<Live>(2 * kMiB);
  SaveContent content = owned->Content();
  content.tensors[0].owner = owned;
  store.connection().Pause();
  const SaveHandle handle = client.SaveAsync("models/m", std::move(content));
  ASSERT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(owned.use_count(), 1);
  store.connection().Resume();
  EXPECT_TRUE(handle.Durable(TestDeadline()).ok());
}

TEST(AsyncTest, TheOwnerOfAnImmutableTensorIsKeptUntilDurable) {
  TestStore store;
  Client client = store.NewClient();
  auto owned = std::make_shared<Live>(2 * kMiB);
  SaveContent content = owned->Content();
  content.tensors[0].owner = owned;
  content.tensors[0].immutable = true;
  store.connection().Pause();
  const SaveHandle handle = client.SaveAsync("models/m", std::move(content));
  ASSERT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
  EXPECT_GT(owned.use_count(), 1);
  store.connection().Resume();
  ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
  EXPECT_EQ(owned.use_count(), 1);
}

// Tells how far the threads that send step back behind the one that made it, and how
// many streams they send over at once.
class WatchedConnection : public Connection {
 public:
  explicit WatchedConnection(Connection& to) : to_(to) {}

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    return to_.Call(method, std::move(request), deadline);
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    nice_ = getpriority(PRIO_PROCESS, 0) - own_;
    int streams = streams_;
    while (streams < lane + 1 && !streams_.compare_exchange_weak(streams, lane + 1)) {
    }
    return to_.Open(method, lane, deadline);
  }
  const ConnectOptions& options() const override { return to_.options(); }
  int nice() const { return nice_; }
  int streams() const { return streams_; }

 private:
  Connection& to_;
  const int own_ = getpriority(PRIO_PROCESS, 0);
  std::atomic<int> nice_{-1};
  std::atomic<int> streams_{0};
};

TEST(AsyncTest, OnceStagedASaveStepsBackForThreadsThatCompute) {
  TestStore store;
  const auto connection = std::make_shared<WatchedConnection>(store.connection());
  Client client(connection);
  Live live(2 * kMiB);
  ASSERT_TRUE(client.SaveAsync("models/m", live.Content()).Durable(TestDeadline()).ok());
  EXPECT_EQ(connection->nice(), 10);
  // The thread that stages the next one has not.
  live.bytes = RandomBytes(2, 2 * kMiB);
  ASSERT_TRUE(client.SaveAsync("models/m", live.Content()).Durable(TestDeadline()).ok());
  EXPECT_EQ(connection->nice(), 10);
}

// Bytes that must be copied before they can be sent, as those of a GPU.
class BytesElsewhere : public ByteSource {
 public:
  explicit BytesElsewhere(const std::string& bytes) : bytes_(bytes) {}
  std::shared_ptr<char> AllocateStaging(size_t bytes) override {
    return {new char[bytes], std::default_delete<char[]>()};
  }
  std::string Begin(int64_t offset, size_t bytes, char* to,
                    std::shared_ptr<char>) override {
    bytes_.copy(to, bytes, static_cast<size_t>(offset));
    copied_ += static_cast<int64_t>(bytes);
    return "";
  }
  std::string Wait(Deadline) override { return ""; }
  int64_t copied() const { return copied_; }

 private:
  const std::string& bytes_;
  std::atomic<int64_t> copied_{0};
};

// The trainer may change it as soon as all was sent.
TEST(AsyncTest, WhatIsStreamedFromADeviceIsReadOnceAlsoUnderARequestId) {
  TestStore store;
  Client client = store.NewClient();
  Live live(4 * kMiB);
  SaveContent content = live.Content();
  const auto source = std::make_shared<BytesElsewhere>(live.bytes);
  content.tensors[0].source = source;
  content.tensors[0].data = nullptr;
  SaveOptions options;
  options.max_staging_bytes = 0;
  options.request_id = "epoch-7";
  auto saved =
      client.SaveAsync("models/m", std::move(content), options).Durable(TestDeadline());
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(source->copied(), 4 * kMiB);
  EXPECT_EQ(Stored(client, saved->name), live.bytes);
}

TEST(AsyncTest, ASaveThatComesToItsEndAtItsTimeoutIsAcknowledged) {
  constexpr int kRounds = 10'000;
  std::vector<std::shared_ptr<SaveHandle::State>> states(kRounds);
  for (auto& state : states) {
    state = std::make_shared<SaveHandle::State>();
    // Finish() waits 2 s longer.
    state->deadline = After(std::chrono::milliseconds(0)) - std::chrono::seconds(2);
    ASSERT_TRUE(state->TryStart());
  }
  std::atomic<int> round{-1};
  std::thread saver([&] {
    for (int i = 0; i < kRounds; ++i) {
      while (round < i) std::this_thread::yield();
      // At another moment of Finish() each time.
      for (std::atomic<int> wait{i % 500}; wait > 0; --wait) {
      }
      states[i]->SetResult(CheckpointInfo{.version = 7});
    }
  });
  int lost = 0;
  for (int i = 0; i < kRounds; ++i) {
    round = i;
    lost += !SaveHandle(states[i]).Finish().ok();
  }
  saver.join();
  EXPECT_EQ(lost, 0);
}

TEST(AsyncTest, ASaveThatIsAwaitedKeepsItsPriority) {
  TestStore store;
  for (const bool on_device : {false, true}) {
    const auto connection = std::make_shared<WatchedConnection>(store.connection());
    Client client(connection);
    Live live(2 * kMiB, on_device ? 1 : 2);
    SaveContent content = live.Content();
    content.tensors[0].immutable = true;
    if (on_device) {
      content.tensors[0].source = std::make_shared<BytesElsewhere>(live.bytes);
      content.tensors[0].data = nullptr;
    }
    ASSERT_TRUE(
        client.SaveAsync("models/m", std::move(content)).Durable(TestDeadline()).ok());
    EXPECT_EQ(connection->nice(), 0) << on_device;
  }
}

TEST(AsyncTest, ASaveThatStepsBackUsesAtMostOneStreamPerTwoCores) {
  TestStore store;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int most = store.connection().options().streams;
  ASSERT_GT(most, 1);
  for (const bool immutable : {false, true}) {
    const auto connection = std::make_shared<WatchedConnection>(store.connection());
    Client client(connection);
    Live live(most * 8 * kMiB, immutable ? 1 : 2);
    SaveContent content = live.Content();
    content.tensors[0].immutable = immutable;
    ASSERT_TRUE(
        client.SaveAsync("models/m", std::move(content)).Durable(TestDeadline()).ok());
    EXPECT_EQ(connection->streams(), immutable ? most : std::clamp(cores / 2, 1, most));
  }
}

TEST(AsyncTest, SavesOfOneModelWaitForEachOther) {
  TestStore store;
  Client client = store.NewClient();
  Live first(kMiB, 1), second(kMiB, 2);
  store.connection().Pause();
  const SaveHandle a = client.SaveAsync("models/m", first.Content());
  const SaveHandle b = client.SaveAsync("models/m", second.Content());
  ASSERT_EQ(a.Staged(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(b.Staged(ShortDeadline()).code(), absl::StatusCode::kDeadlineExceeded);
  // Another model's save does not wait.
  const SaveHandle c = client.SaveAsync("models/other", second.Content());
  EXPECT_EQ(c.Staged(TestDeadline()), absl::OkStatus());
  store.connection().Resume();
  EXPECT_EQ(a.Durable(TestDeadline())->version, 1);
  EXPECT_EQ(b.Durable(TestDeadline())->version, 2);
  EXPECT_TRUE(c.Durable(TestDeadline()).ok());
}

TEST(AsyncTest, ASaveThatWillNotWaitFailsAtOnce) {
  TestStore store;
  Client client = store.NewClient();
  Live live(kMiB);
  store.connection().Pause();
  const SaveHandle a = client.SaveAsync("models/m", live.Content());
  SaveOptions options;
  options.when_busy = WhenBusy::kFail;
  const SaveHandle b = client.SaveAsync("models/m", live.Content(), options);
  EXPECT_EQ(b.Durable(ShortDeadline()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(b.Staged(ShortDeadline()).code(), absl::StatusCode::kFailedPrecondition);
  store.connection().Resume();
  EXPECT_TRUE(a.Durable(TestDeadline()).ok());
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
  EXPECT_TRUE(
      client.SaveAsync("models/m", live.Content(), options).Durable(TestDeadline()).ok());
}

TEST(AsyncTest, AQueuedSaveIsReplacedByALaterOne) {
  TestStore store;
  Client client = store.NewClient();
  Live live(kMiB);
  store.connection().Pause();
  SaveOptions options;
  options.when_busy = WhenBusy::kReplaceQueued;
  const SaveHandle running = client.SaveAsync("models/m", live.Content(), options);
  ASSERT_EQ(running.Staged(TestDeadline()), absl::OkStatus());
  const SaveHandle replaced = client.SaveAsync("models/m", live.Content(), options);
  const SaveHandle last = client.SaveAsync("models/m", live.Content(), options);
  EXPECT_EQ(replaced.Durable(ShortDeadline()).status().code(),
            absl::StatusCode::kCancelled);
  store.connection().Resume();
  EXPECT_EQ(running.Durable(TestDeadline())->version, 1);
  EXPECT_EQ(last.Durable(TestDeadline())->version, 2);
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
}

// A save that fails for good, its handle dropped.
void FailUnseen(Client& client, const Live& live) {
  SaveOptions options;
  options.expected_latest_version = 999;
  (void)client.SaveAsync("models/m", live.Content(), options);
}

TEST(AsyncTest, AnUnseenFailureIsReturnedByTheNextSave) {
  TestStore store;
  Client client = store.NewClient();
  Live live(1000);
  FailUnseen(client, live);
  SaveHandle next = client.SaveAsync("models/m", live.Content());
  // The failed one may have been under way still: then the one after hears of it.
  if (next.Durable(TestDeadline()).ok())
    next = client.SaveAsync("models/m", live.Content());
  const absl::Status s = next.Durable(TestDeadline()).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kAborted) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("earlier save"));
  // Told once.
  EXPECT_TRUE(client.SaveAsync("models/m", live.Content()).Durable(TestDeadline()).ok());
}

TEST(AsyncTest, AnUnseenFailureIsReturnedByDrain) {
  TestStore store;
  Client client = store.NewClient();
  Live live(1000);
  FailUnseen(client, live);
  Client copy = client;
  EXPECT_EQ(copy.Drain(TestDeadline()).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
}

TEST(AsyncTest, AFailureThatWasSeenIsNotReportedAgain) {
  TestStore store;
  Client client = store.NewClient();
  Live live(1000);
  SaveOptions options;
  options.expected_latest_version = 999;
  EXPECT_FALSE(
      client.SaveAsync("models/m", live.Content(), options).Durable(TestDeadline()).ok());
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
}

TEST(AsyncTest, DrainWaitsForEverySaveAndNoLongerThanItMay) {
  TestStore store;
  Client client = store.NewClient();
  Live live(kMiB);
  store.connection().Pause();
  std::vector<SaveHandle> handles;
  for (int i = 0; i < 3; ++i) {
    handles.push_back(client.SaveAsync(absl::StrCat("models/m", i), live.Content()));
  }
  EXPECT_EQ(client.Drain(ShortDeadline()).code(), absl::StatusCode::kDeadlineExceeded);
  store.connection().Resume();
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
  for (const SaveHandle& handle : handles)
    EXPECT_TRUE(handle.Durable(ShortDeadline()).ok());
}

TEST(AsyncTest, ASaveOutlivesItsHandleAndItsClient) {
  TestStore store;
  Live live(3 * kMiB);
  store.connection().Pause();
  {
    Client client = store.NewClient();
    ASSERT_EQ(client.SaveAsync("models/m", live.Content()).Staged(TestDeadline()),
              absl::OkStatus());
  }
  store.connection().Resume();
  Client other = store.NewClient();
  for (int i = 0; i < 2000; ++i) {
    if (other.GetCheckpoint("models/m/checkpoints/1").ok()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(Stored(other, "models/m/checkpoints/1"), live.bytes);
}

TEST(AsyncTest, ACancelledSaveEndsAndLeavesNothing) {
  TestStore store;
  Client client = store.NewClient();
  Live live(4 * kMiB);
  store.connection().SetFaults({.stall_at = 2});
  const SaveHandle handle = client.SaveAsync("models/m", live.Content());
  ASSERT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(handle.Durable(ShortDeadline()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  handle.Cancel();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(handle.Durable(TestDeadline()).status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
  auto uploads = store.store().uploads().List("", "", 10);
  ASSERT_TRUE(uploads.ok());
  EXPECT_TRUE(uploads->items.empty());
  auto info = client.SaveAsync("models/m", live.Content()).Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->version, 1);
}

TEST(AsyncTest, AQueuedSaveCanBeCancelled) {
  TestStore store;
  Client client = store.NewClient();
  Live live(kMiB);
  store.connection().Pause();
  const SaveHandle running = client.SaveAsync("models/m", live.Content());
  const SaveHandle queued = client.SaveAsync("models/m", live.Content());
  queued.Cancel();
  store.connection().Resume();
  EXPECT_EQ(queued.Durable(TestDeadline()).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(running.Durable(TestDeadline())->version, 1);
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
}

TEST(AsyncTest, CancellingADurableSaveChangesNothing) {
  TestStore store;
  Client client = store.NewClient();
  Live live(1000);
  const SaveHandle handle = client.SaveAsync("models/m", live.Content());
  ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
  handle.Cancel();
  EXPECT_TRUE(handle.Durable(TestDeadline()).ok());
}

TEST(AsyncTest, ASaveEndsAtItsTimeout) {
  ConnectOptions options = support::ImpatientOptions();
  options.stall_timeout = std::chrono::milliseconds(60'000);
  TestStore store(options);
  Client client = store.NewClient();
  Live live(2 * kMiB);
  store.connection().SetFaults({.stall_at = 1});
  SaveOptions save;
  save.deadline = After(std::chrono::milliseconds(200));
  EXPECT_EQ(client.SaveAsync("models/m", live.Content(), save)
                .Durable(TestDeadline())
                .status()
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(AsyncTest, TheLastDeadlineNeverComes) {
  constexpr auto kLongest = std::chrono::milliseconds::max();
  TestStore store({.deadline = Deadline::max(),
                   .stall_timeout = std::chrono::hours::max(),
                   .retry_timeout = kLongest});
  Client client = store.NewClient();
  SaveOptions options;
  options.deadline = After(std::chrono::hours::max());
  for (const int64_t size : {int64_t{1000}, 5 * kMiB}) {
    Live live(size);
    const SaveHandle handle = client.SaveAsync("models/m", live.Content(), options);
    ASSERT_EQ(handle.Staged(After(kLongest)), absl::OkStatus());
    auto saved = handle.Durable(After(kLongest));
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(Stored(client, saved->name), live.bytes);
    auto plan = client.PlanLoad(saved->name, {.deadline = After(kLongest)});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->Run(After(kLongest)), absl::OkStatus());
  }
  EXPECT_EQ(client.Drain(After(kLongest)), absl::OkStatus());
}

TEST(AsyncTest, ADeadlineThatHasPassedIsOverAtOnceAndSavesNothing) {
  TestStore store;
  Client client = store.NewClient();
  Live live(2 * kMiB);
  for (const auto timeout : {std::chrono::milliseconds(0), std::chrono::milliseconds(-1),
                             std::chrono::milliseconds::min()}) {
    SaveOptions options;
    options.deadline = After(timeout);
    EXPECT_EQ(client.SaveAsync("models/m", live.Content(), options)
                  .Durable(TestDeadline())
                  .status()
                  .code(),
              absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_FALSE(client.GetCheckpoint("models/m/checkpoints/latest").ok());
}

TEST(AsyncTest, ASaveCutOffBeforeItsCommitReportsThatNothingWasSaved) {
  ConnectOptions options = support::ImpatientOptions();
  options.stall_timeout = std::chrono::milliseconds(60'000);
  TestStore store(options);
  Client client = store.NewClient();
  Live live(2 * kMiB);
  store.connection().Pause();
  SaveOptions save;
  save.deadline = After(std::chrono::milliseconds(200));
  const absl::Status s =
      client.SaveAsync("models/m", live.Content(), save).Finish().status();
  store.connection().Resume();
  EXPECT_EQ(s.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(s.message()), HasSubstr("nothing was saved"));
  EXPECT_THAT(std::string(s.message()), Not(HasSubstr("resumes")));
  EXPECT_TRUE(client.ListCheckpoints("models/m")->empty());
}

TEST(AsyncTest, ASaveCutOffInItsCommitReportsThatAVersionMayExistAndHowToLearnIt) {
  for (const int64_t size : {int64_t{1000}, 2 * kMiB}) {
    ConnectOptions options = support::ImpatientOptions();
    options.retry_timeout = std::chrono::milliseconds(0);
    TestStore store(options);
    Client client = store.NewClient();
    Live live(size);
    SaveOptions save;
    save.request_id = "epoch-7";
    // A small save's last message, or the call that commits an upload, arrives, and
    // its answer does not.
    absl::Status s;
    for (int64_t n = 1; n < 20; ++n) {
      if (size < kMiB) {
        store.connection().SetFaults({.cut_at = n, .deliver_cut = true});
      } else {
        store.connection().SetFaults({.lose_answer_at = n});
      }
      auto saved = client.SaveAsync("models/m", live.Content(), save).Finish();
      s = saved.status();
      if (!s.ok() && s.message().find("may have succeeded") != absl::string_view::npos)
        break;
    }
    EXPECT_THAT(std::string(s.message()), HasSubstr("request_id \"epoch-7\""));
    store.connection().SetFaults({});
    auto again = client.SaveAsync("models/m", live.Content(), save).Finish();
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->version, 1);
    EXPECT_EQ(client.ListCheckpoints("models/m")->size(), 1u);
  }
}

TEST(AsyncTest, AQueuedSaveThatIsCancelledEndsAtOnce) {
  TestStore store;
  Client client = store.NewClient();
  Live live(2 * kMiB);
  store.connection().Pause();
  const SaveHandle first = client.SaveAsync("models/m", live.Content());
  const SaveHandle second = client.SaveAsync("models/m", live.Content());
  second.Cancel();
  EXPECT_TRUE(absl::IsCancelled(second.Durable(ShortDeadline()).status()));
  store.connection().Resume();
  EXPECT_TRUE(first.Durable(TestDeadline()).ok());
  EXPECT_EQ(client.Drain(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(client.ListCheckpoints("models/m")->size(), 1u);
}

TEST(AsyncTest, ProgressGrowsToTheWhole) {
  TestStore store;
  Client client = store.NewClient();
  Live live(10 * kMiB);
  store.connection().Pause();
  const SaveHandle handle = client.SaveAsync("models/m", live.Content());
  ASSERT_EQ(handle.Staged(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(handle.progress().total_bytes, 10 * kMiB);
  EXPECT_EQ(handle.progress().done_bytes, 0);
  store.connection().Resume();
  ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
  EXPECT_EQ(handle.progress().done_bytes, 10 * kMiB);
  EXPECT_GE(handle.progress().transferred_bytes, 10 * kMiB);
  EXPECT_EQ(handle.progress().reconnects, 0);
}

}  // namespace
}  // namespace modelstore
