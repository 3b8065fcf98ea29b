// What clients do to each other: two writers, deletion beneath a load, commits and
// requests that come twice, names and numbers that are used again.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/contract/mutex.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using support::Context;
using support::RawTensor;
using support::TensorSet;

class ConcurrencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(), .data = "", .flags = {"--grace", "0s"}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *client;
    raw_ = std::make_unique<support::RawClient>(server_->NewChannel());
  }

  absl::StatusOr<CheckpointInfo> SaveNow(const TensorSet& content,
                                         SaveOptions options = {}) {
    return support::Save(*client_, kModel, content, std::move(options));
  }

  static constexpr char kModel[] = "models/m";
  support::TempFolder folder_{"concurrency"};
  std::unique_ptr<support::ServerProcess> server_;
  std::optional<Client> client_;
  std::unique_ptr<support::RawClient> raw_;
};

TensorSet Small(uint64_t seed) {
  return TensorSet({.seed = seed, .tensors = 4, .bytes = 50'000});
}
TensorSet Large(uint64_t seed) {
  return TensorSet({.seed = seed, .tensors = 4, .bytes = 3 << 20});
}

// The client would resume a stream that gRPC cancels on the server for want of memory,
// and nobody would know but for the time that it took.
TEST_F(ConcurrencyTest, SavesAsFastAsTheyGoLoseNoStream) {
  const TensorSet content({.seed = 1, .tensors = 8, .bytes = 256 << 20});
  SaveOptions options;
  options.no_base = true;
  for (int i = 0; i < 6; ++i) {
    SaveHandle save = client_->SaveAsync(kModel, content.Content(), options);
    auto saved = save.Durable(After(std::chrono::seconds(120)));
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(save.progress().reconnects, 0);
    ASSERT_EQ(client_->DeleteCheckpoint(saved->name), absl::OkStatus());
  }
}

TEST_F(ConcurrencyTest, OfTwoWritersThatExpectTheSameHeadOneIsAborted) {
  for (const bool large : {false, true}) {
    const TensorSet before = large ? Large(1) : Small(1);
    auto head = SaveNow(before);
    ASSERT_TRUE(head.ok()) << head.status();
    SaveOptions options;
    options.expected_latest_version = head->version;
    auto first = SaveNow(large ? Large(2) : Small(2), options);
    ASSERT_TRUE(first.ok()) << first.status();
    auto second = SaveNow(large ? Large(3) : Small(3), options);
    EXPECT_EQ(second.status().code(), absl::StatusCode::kAborted) << second.status();
  }
  SaveOptions options;
  options.expect_no_version = true;
  EXPECT_EQ(SaveNow(Small(4), options).status().code(), absl::StatusCode::kAborted);
}

TEST_F(ConcurrencyTest, ARaceOfManyWritersForOneHeadHasOneWinnerEachRound) {
  auto head = SaveNow(Small(0));
  ASSERT_TRUE(head.ok()) << head.status();
  int64_t version = head->version;
  constexpr int kWriters = 4, kRounds = 15;
  for (int round = 0; round < kRounds; ++round) {
    std::atomic<int> won{0}, aborted{0};
    std::atomic<int64_t> next{0};
    std::vector<std::thread> writers;
    for (int w = 0; w < kWriters; ++w) {
      writers.emplace_back([&, w] {
        // Clients of their own: one client saves one after the other.
        auto client = support::ConnectTo(server_->address());
        ASSERT_TRUE(client.ok());
        SaveOptions options;
        options.expected_latest_version = version;
        const uint64_t seed = static_cast<uint64_t>(100 * round + w);
        auto saved = support::Save(*client, kModel,
                                   w % 2 == 0 ? Small(seed) : Large(seed), options);
        if (saved.ok()) {
          ++won;
          next = saved->version;
        } else {
          EXPECT_EQ(saved.status().code(), absl::StatusCode::kAborted) << saved.status();
          ++aborted;
        }
      });
    }
    for (std::thread& t : writers) t.join();
    ASSERT_EQ(won, 1);
    EXPECT_EQ(aborted, kWriters - 1);
    EXPECT_GT(next, version);
    version = next;
  }
}

TEST_F(ConcurrencyTest, WritersWithoutAnExpectationAllSucceedWithNumbersOfTheirOwn) {
  constexpr int kWriters = 4, kSaves = 10;
  std::map<int64_t, TensorSet> made;
  Mutex mutex;
  std::vector<std::thread> writers;
  for (int w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      auto client = support::ConnectTo(server_->address());
      ASSERT_TRUE(client.ok());
      for (int i = 0; i < kSaves; ++i) {
        const uint64_t seed = static_cast<uint64_t>(1'000 * w + i);
        const TensorSet content = i % 3 == 0 ? Large(seed) : Small(seed);
        auto saved = support::Save(*client, kModel, content);
        ASSERT_TRUE(saved.ok()) << saved.status();
        MutexLock lock(mutex);
        EXPECT_TRUE(made.emplace(saved->version, content).second);
      }
    });
  }
  for (std::thread& t : writers) t.join();
  ASSERT_EQ(made.size(), size_t{kWriters * kSaves});
  EXPECT_EQ(made.rbegin()->first, kWriters * kSaves);
  for (const auto& [version, content] : made) {
    EXPECT_EQ(support::Verify(*client_, absl::StrCat(kModel, "/checkpoints/", version),
                              content),
              absl::OkStatus());
  }
}

TEST_F(ConcurrencyTest, ALoadOutlivesTheDeletionOfItsCheckpoint) {
  const TensorSet content({.seed = 4, .tensors = 10, .bytes = 48 << 20});
  auto saved = SaveNow(content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  v1::LoadCheckpointRequest request;
  request.set_name(saved->name);
  Context context;
  const auto reader = raw_->transfer().LoadCheckpoint(&context, request);
  v1::LoadCheckpointResponse response;
  std::string bytes;
  v1::LoadPlan plan;
  // It runs: a part of the bytes is here, the rest is held back by flow control.
  while (bytes.empty() && reader->Read(&response)) {
    if (response.has_plan()) plan.MergeFrom(response.plan());
    bytes += response.data();
  }
  ASSERT_EQ(client_->DeleteCheckpoint(saved->name), absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(client_->GetCheckpoint(saved->name).status()));
  auto swept = server_->CollectGarbage();
  ASSERT_TRUE(swept.ok()) << swept.status();
  EXPECT_GE(swept->waiting_bytes(), content.total_bytes());
  while (reader->Read(&response)) {
    if (response.has_plan()) plan.MergeFrom(response.plan());
    bytes += response.data();
  }
  const grpc::Status s = reader->Finish();
  ASSERT_TRUE(s.ok()) << s.error_message();
  std::string expected;
  std::map<std::string, const std::string*> by_name;
  for (const auto& e : content.entries()) {
    by_name[e.info.section + ":" + e.info.key] = e.bytes.get();
  }
  for (const v1::Tensor& t : plan.tensors()) {
    expected += *by_name.at(t.section() + ":" + t.key());
  }
  EXPECT_TRUE(bytes == expected);
  // The load is over: now the bytes go.
  swept = server_->CollectGarbage();
  ASSERT_TRUE(swept.ok()) << swept.status();
  auto stats = server_->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->pack_bytes(), 0);
}

TEST_F(ConcurrencyTest, LoadsDuringDeletionsAndSweepsReturnTheRightBytesOrNotFound) {
  std::atomic<bool> done{false};
  std::atomic<int> loads{0}, gone{0};
  std::vector<std::thread> loaders;
  Mutex mutex;
  std::map<std::string, TensorSet> alive;
  for (int i = 0; i < 2; ++i) {
    loaders.emplace_back([&, i] {
      std::mt19937_64 random(TestSeed() + static_cast<uint64_t>(i));
      while (!done) {
        std::string name;
        TensorSet content;
        {
          MutexLock lock(mutex);
          if (!alive.empty()) {
            const auto it = std::next(alive.begin(), random() % alive.size());
            name = it->first;
            content = it->second;
          }
        }
        if (name.empty()) continue;
        const absl::Status s = support::Verify(*client_, name, content);
        if (absl::IsNotFound(s)) {
          ++gone;
        } else {
          EXPECT_EQ(s, absl::OkStatus());
          ++loads;
        }
      }
    });
  }
  for (uint64_t i = 0; i < 40; ++i) {
    const TensorSet content = i % 2 == 0 ? Large(i) : Small(i);
    auto saved = SaveNow(content);
    EXPECT_TRUE(saved.ok()) << saved.status();
    if (!saved.ok()) break;
    std::string victim;
    {
      MutexLock lock(mutex);
      alive[saved->name] = content;
      if (alive.size() > 3) {
        victim = alive.begin()->first;
        alive.erase(alive.begin());
      }
    }
    if (!victim.empty()) {
      EXPECT_EQ(client_->DeleteCheckpoint(victim), absl::OkStatus());
    }
    EXPECT_TRUE(server_->CollectGarbage().ok());
  }
  done = true;
  for (std::thread& t : loaders) t.join();
  std::printf("loads beside deletions: %d right, %d not found\n", loads.load(),
              gone.load());
  EXPECT_GT(loads, 0);
}

TEST_F(ConcurrencyTest, ACommitRepeatedGivesTheSameVersion) {
  v1::Upload upload;
  ASSERT_TRUE(raw_->CreateUpload(kModel, "once", &upload).ok());
  const RawTensor t("t", 1, 100'000, 3);
  ASSERT_TRUE(raw_->Upload(upload.name(), 0, {t.tensor}, t.chunks).ok());
  v1::Checkpoint first, second;
  ASSERT_TRUE(raw_->Commit(upload.name(), &first).ok());
  const grpc::Status s = raw_->Commit(upload.name(), &second);
  ASSERT_TRUE(s.ok()) << s.error_message();
  EXPECT_EQ(first.name(), second.name());
  EXPECT_EQ(first.manifest_digest(), second.manifest_digest());
  // The open request leads to it too, also after a restart.
  server_->Kill();
  ASSERT_EQ(server_->Restart(), absl::OkStatus());
  v1::Upload again;
  raw_ = std::make_unique<support::RawClient>(server_->NewChannel());
  ASSERT_TRUE(raw_->CreateUpload(kModel, "once", &again).ok());
  EXPECT_EQ(again.committed_version(), first.version());
  // Nothing more goes into it.
  EXPECT_EQ(raw_->Upload(upload.name(), 0, {}, {"late"}).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ConcurrencyTest, ManyCommitsAtOnceMakeOneVersion) {
  for (int round = 0; round < 10; ++round) {
    v1::Upload upload;
    ASSERT_TRUE(raw_->CreateUpload(kModel, absl::StrCat("race-", round), &upload).ok());
    const RawTensor t("t", static_cast<uint64_t>(round), 100'000, 3);
    ASSERT_TRUE(raw_->Upload(upload.name(), 0, {t.tensor}, t.chunks).ok());
    v1::Checkpoint made[4];
    std::vector<std::thread> committers;
    for (v1::Checkpoint& m : made) {
      committers.emplace_back([&, out = &m] {
        const grpc::Status s = raw_->Commit(upload.name(), out);
        EXPECT_TRUE(s.ok()) << s.error_message();
      });
    }
    for (std::thread& c : committers) c.join();
    for (const v1::Checkpoint& m : made) EXPECT_EQ(m.version(), round + 1);
  }
}

TEST_F(ConcurrencyTest, ARequestIdTwiceGivesOneVersionAndWithOtherContentAnError) {
  for (const bool large : {false, true}) {
    SaveOptions options;
    options.request_id = large ? "large" : "small";
    const TensorSet content = large ? Large(1) : Small(1);
    auto first = SaveNow(content, options);
    ASSERT_TRUE(first.ok()) << first.status();
    auto second = SaveNow(content, options);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ(first->version, second->version);
    auto other = SaveNow(large ? Large(2) : Small(2), options);
    EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument)
        << other.status();
  }
  auto list = client_->ListCheckpoints(kModel);
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->size(), 2u);
}

TEST_F(ConcurrencyTest, TheNumberOfADeletedVersionIsNeverGivenAgain) {
  ASSERT_TRUE(SaveNow(Small(1)).ok());
  for (int64_t version = 2; version < 6; ++version) {
    auto saved = SaveNow(version % 2 == 0 ? Large(version) : Small(version));
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(saved->version, version);
    ASSERT_EQ(client_->DeleteCheckpoint(saved->name), absl::OkStatus());
    auto latest = client_->GetCheckpoint(absl::StrCat(kModel, "/checkpoints/latest"));
    ASSERT_TRUE(latest.ok()) << latest.status();
    EXPECT_EQ(latest->version, 1);
    if (version == 3) {
      server_->Kill();
      ASSERT_EQ(server_->Restart(), absl::OkStatus());
    }
    ASSERT_TRUE(server_->CollectGarbage().ok());
  }
  // Not even after the last of all was deleted.
  ASSERT_EQ(client_->DeleteCheckpoint(absl::StrCat(kModel, "/checkpoints/1")),
            absl::OkStatus());
  auto saved = SaveNow(Small(7));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->version, 6);
}

TEST_F(ConcurrencyTest, AModelRecreatedIsAnotherModel) {
  const TensorSet old_content = Large(1);
  auto old_version = SaveNow(old_content);
  ASSERT_TRUE(old_version.ok()) << old_version.status();
  v1::Upload upload;
  ASSERT_TRUE(raw_->CreateUpload(kModel, "of-the-old-model", &upload).ok());
  EXPECT_EQ(client_->DeleteModel(kModel).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(client_->DeleteModel(kModel, {.force = true}), absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(client_->GetModel(kModel).status()));

  // The same bytes: of the old model's nothing may be shared, it is going.
  auto saved = SaveNow(old_content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->version, 1);
  EXPECT_NE(saved->model_uid, old_version->model_uid);
  ASSERT_TRUE(server_->CollectGarbage().ok());
  EXPECT_EQ(support::Verify(*client_, saved->name, old_content), absl::OkStatus());
  EXPECT_EQ(raw_->Upload(upload.name(), 0, {}, {"late"}).error_code(),
            grpc::StatusCode::NOT_FOUND);
  server_->Kill();
  ASSERT_EQ(server_->Restart(), absl::OkStatus());
  EXPECT_EQ(support::Verify(*client_, saved->name, old_content), absl::OkStatus());
  auto stats = server_->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->checkpoint_count(), 1);
  EXPECT_EQ(stats->model_count(), 1);
  EXPECT_EQ(stats->open_upload_count(), 0);
}

}  // namespace
}  // namespace modelstore
