// What a save sends, and what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::RandomBytes;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;

// `tensors` of `bytes` each.
TensorSet Equal(int tensors, int64_t bytes, uint64_t seed) {
  TensorSet set;
  for (int i = 0; i < tensors; ++i) {
    TensorInfo info;
    info.key = absl::StrCat("layer.", i);
    info.dtype = DType::kUint8;
    info.shape = {bytes};
    set.Add(info, RandomBytes(seed * 1000 + i, bytes));
  }
  return set;
}

struct Saved {
  CheckpointInfo info;
  Progress progress;
};

Saved SaveOrDie(Client& client, const TensorSet& tensors, SaveOptions options = {}) {
  const SaveHandle handle =
      client.SaveAsync("models/m", tensors.Content(), std::move(options));
  auto info = handle.Durable(TestDeadline());
  EXPECT_TRUE(info.ok()) << info.status();
  return {info.ok() ? *info : CheckpointInfo(), handle.progress()};
}

// A device whose memory this process has in truth. It copies when it is waited for and
// not before, and counts the page-locked bytes that are out.
class PretendedDevice {
 public:
  // The same content, as if it lay there.
  SaveContent Hold(const TensorSet& tensors) {
    SaveContent content = tensors.Content();
    for (TensorView& view : content.tensors) {
      view.source = std::make_shared<Source>(*this, static_cast<const char*>(view.data));
      view.data = nullptr;
    }
    return content;
  }
  int64_t max_bytes() const { return most_; }
  int64_t bytes() const { return out_; }

 private:
  class Source final : public ByteSource {
   public:
    Source(PretendedDevice& device, const char* bytes) : device_(device), bytes_(bytes) {}

    std::shared_ptr<char> AllocateStaging(size_t bytes) override {
      const int64_t out = device_.out_ += static_cast<int64_t>(bytes);
      int64_t most = device_.most_;
      while (most < out && !device_.most_.compare_exchange_weak(most, out)) continue;
      return {new char[bytes], [device = &device_, bytes](char* room) {
                delete[] room;
                device->out_ -= static_cast<int64_t>(bytes);
              }};
    }
    std::string Begin(int64_t offset, size_t bytes, char* to,
                      std::shared_ptr<char> room) override {
      copies_.push_back({to, bytes_ + offset, bytes, std::move(room)});
      return "";
    }
    std::string Wait(Deadline) override {
      for (const Copy& copy : copies_) std::memcpy(copy.to, copy.from, copy.bytes);
      copies_.clear();
      return "";
    }

   private:
    struct Copy {
      char* to;
      const char* from;
      size_t bytes;
      std::shared_ptr<char> room;
    };
    PretendedDevice& device_;
    const char* const bytes_;
    // Unguarded: a source is used by one thread at a time.
    std::vector<Copy> copies_;
  };

  std::atomic<int64_t> out_{0};
  std::atomic<int64_t> most_{0};
};

TEST(SaveTest, ADeviceThatHoldsMoreThanStagingMayIsStreamedAlsoOverABadNetwork) {
  for (const int64_t cut_every : {0, 9}) {
    TestStore store;
    Client client = store.NewClient();
    PretendedDevice device;
    SaveOptions options;
    options.max_staging_bytes = kMiB;
    const TensorSet first = Equal(5, 9 * kMiB + 1000, 1);
    store.connection().SetFaults({.cut_every = cut_every});
    SaveHandle handle = client.SaveAsync("models/m", device.Hold(first), options);
    ASSERT_TRUE(handle.Staged(TestDeadline()).ok());
    ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
    EXPECT_EQ(handle.progress().reconnects > 0, cut_every > 0);
    EXPECT_EQ(device.bytes(), 0);
    EXPECT_LE(device.max_bytes(), 3 * 9 * kMiB) << "for three streams";
    store.connection().SetFaults({});
    EXPECT_EQ(support::Verify(client, "models/m/checkpoints/1", first), absl::OkStatus());

    const TensorSet second = first.WithChanged(4, 99);
    handle = client.SaveAsync("models/m", device.Hold(second), options);
    ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
    EXPECT_LT(handle.progress().transferred_bytes, 10 * kMiB) << "what has changed";
    EXPECT_EQ(support::Verify(client, "models/m/checkpoints/2", second),
              absl::OkStatus());
  }
}

TEST(SaveTest, OnlyWhatChangedCrossesTheWire) {
  TestStore store;
  Client client = store.NewClient();
  // What changes is once less and once more than a small save.
  for (const int64_t size : {kMiB / 4, 3 * kMiB}) {
    const TensorSet first = Equal(10, size, 1);
    SaveOrDie(client, first);
    const TensorSet second = first.WithChanged(4, 99);
    const Saved saved = SaveOrDie(client, second);
    EXPECT_LE(saved.progress.transferred_bytes, size * 11 / 10);
    EXPECT_GE(saved.progress.transferred_bytes, size);
    EXPECT_EQ(saved.progress.total_bytes, 10 * size);
    EXPECT_EQ(saved.progress.done_bytes, 10 * size);
    EXPECT_EQ(saved.info.stored_bytes, size);
    EXPECT_EQ(support::Verify(client, saved.info.name, second), absl::OkStatus());
  }
}

TEST(SaveTest, AnUnchangedStateSendsOnlyItsManifest) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = Equal(4, 2 * kMiB, 1);
  SaveOrDie(client, state);
  const Saved again = SaveOrDie(client, state);
  EXPECT_EQ(again.info.version, 2);
  EXPECT_LT(again.progress.transferred_bytes, 10'000);
  EXPECT_EQ(again.info.stored_bytes, 0);
  EXPECT_EQ(support::Verify(client, again.info.name, state), absl::OkStatus());
}

TEST(SaveTest, EqualChunksOfOneSaveCrossOnce) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet zeros;
  TensorInfo info;
  info.key = "zeros";
  info.dtype = DType::kUint8;
  info.shape = {20 * kMiB};
  zeros.Add(info, std::string(20 * kMiB, '\0'));
  const Saved saved = SaveOrDie(client, zeros);
  EXPECT_LT(saved.progress.transferred_bytes, 3 * kMiB);
  EXPECT_EQ(saved.progress.done_bytes, 20 * kMiB);
  EXPECT_EQ(support::Verify(client, saved.info.name, zeros), absl::OkStatus());
}

TEST(SaveTest, ASaveWithoutABaseSharesNothing) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = Equal(2, 2 * kMiB, 1);
  SaveOrDie(client, state);
  SaveOptions options;
  options.no_base = true;
  const Saved again = SaveOrDie(client, state, options);
  EXPECT_GE(again.progress.transferred_bytes, 4 * kMiB);
  EXPECT_EQ(again.info.base_checkpoint, "");
  options.base_checkpoint = "models/m/checkpoints/1";
  for (const TensorSet& both : {state, Equal(2, 1000, 1)}) {
    EXPECT_EQ(support::Save(client, "models/m", both, options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(SaveTest, AnEarlierVersionMayBeTheBase) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet first = Equal(2, 2 * kMiB, 1);
  SaveOrDie(client, first);
  SaveOrDie(client, Equal(2, 2 * kMiB, 2));
  SaveOptions options;
  options.base_checkpoint = "models/m/checkpoints/1";
  const Saved third = SaveOrDie(client, first, options);
  EXPECT_LT(third.progress.transferred_bytes, 10'000);
  EXPECT_EQ(third.info.base_checkpoint, "models/m/checkpoints/1");
  EXPECT_EQ(support::Verify(client, third.info.name, first), absl::OkStatus());
}

TEST(SaveTest, OneRequestIdMakesOneVersion) {
  TestStore store;
  Client client = store.NewClient();
  for (const int64_t size : {int64_t{1000}, 2 * kMiB}) {
    const TensorSet state = Equal(2, size, size);
    SaveOptions options;
    options.request_id = absl::StrCat("id-", size);
    const Saved first = SaveOrDie(client, state, options);
    const Saved again = SaveOrDie(client, state, options);
    EXPECT_EQ(again.info.name, first.info.name);
    EXPECT_EQ(first.info.request_id, options.request_id);
    EXPECT_EQ(support::Save(client, "models/m", Equal(2, size, size + 7), options)
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(SaveTest, TheExpectedHeadMustBeTheHead) {
  TestStore store;
  Client client = store.NewClient();
  for (const int64_t size : {int64_t{1000}, 2 * kMiB}) {
    const TensorSet state = Equal(2, size, 1);
    SaveOptions options;
    options.expected_latest_version = 7;
    EXPECT_EQ(support::Save(client, "models/m", state, options).status().code(),
              absl::StatusCode::kAborted);
    options.expected_latest_version = 0;
    EXPECT_EQ(support::Save(client, "models/m", state, options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  SaveOptions options;
  options.expect_no_version = true;
  EXPECT_EQ(SaveOrDie(client, Equal(2, 1000, 1), options).info.version, 1);
  for (const int64_t size : {int64_t{1000}, 2 * kMiB}) {
    const TensorSet state = Equal(2, size, 2);
    EXPECT_EQ(support::Save(client, "models/m", state, options).status().code(),
              absl::StatusCode::kAborted);
  }
  options.expected_latest_version = 1;
  EXPECT_EQ(support::Save(client, "models/m", Equal(2, 1000, 1), options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.expect_no_version = false;
  EXPECT_EQ(SaveOrDie(client, Equal(2, 2 * kMiB, 1), options).info.version, 2);
}

TEST(SaveTest, TensorsThatDoNotAddUpAreRefusedByName) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet state = Equal(1, 100, 1);
  const auto refusal = [&](auto change) {
    SaveContent content = state.Content();
    change(content.tensors[0]);
    return client.SaveAsync("models/m", content, {}).Durable(TestDeadline()).status();
  };
  for (const absl::Status& s : {
           refusal([](TensorView& v) { v.info.shape = {101}; }),
           refusal([](TensorView& v) { v.info.shape = {-1}; }),
           refusal([](TensorView& v) {
             v.info.shape = {int64_t{1} << 62, 8};
           }),
           refusal([](TensorView& v) { v.info.dtype = DType::kFloat32; }),
           refusal([](TensorView& v) { v.data = nullptr; }),
       }) {
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(s.message()), HasSubstr("layer.0"));
  }
  EXPECT_EQ(client.SaveAsync("nonsense", state.Content(), {})
                .Durable(TestDeadline())
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SaveTest, ALostAnswerOfAnyCallMakesOneVersionAllTheSame) {
  for (int n = 1;; ++n) {
    TestStore store;
    Client client = store.NewClient();
    const TensorSet state = Equal(3, kMiB, 1);
    store.connection().SetFaults({.lose_answer_at = n});
    SaveOrDie(client, state);
    const int64_t calls = store.connection().calls();
    auto list = client.ListCheckpoints("models/m");
    ASSERT_TRUE(list.ok());
    ASSERT_EQ(list->size(), 1u) << "answer " << n << " was lost";
    EXPECT_EQ(support::Verify(client, "models/m/checkpoints/1", state), absl::OkStatus());
    if (calls < n) {
      EXPECT_GT(n, 3);
      break;
    }
  }
}

// The rows of one tensor, saved by several workers.
SaveContent RowsOf(const std::string& bytes, int64_t rows, int64_t begin, int64_t end) {
  const int64_t row_bytes = static_cast<int64_t>(bytes.size()) / rows;
  TensorView view;
  view.info.key = "w";
  view.info.dtype = DType::kUint8;
  view.info.shape = {rows, row_bytes};
  view.info.size_bytes = (end - begin) * row_bytes;
  view.data = bytes.data() + begin * row_bytes;
  view.offset = {begin, 0};
  view.size = {end - begin, row_bytes};
  SaveContent content;
  content.tensors = {view};
  return content;
}

SaveOptions Worker(int i, int n, const std::string& request_id) {
  SaveOptions options;
  options.contribution = i;
  options.contribution_count = n;
  options.request_id = request_id;
  return options;
}

TEST(DistributedSaveTest, WorkersSaveOneCheckpointTogether) {
  TestStore store;
  const std::string bytes = RandomBytes(1, 4 * kMiB);
  std::vector<absl::StatusOr<CheckpointInfo>> results(2, absl::UnknownError(""));
  std::vector<std::thread> workers;
  for (int i = 0; i < 2; ++i) {
    workers.emplace_back([&, i] {
      // Every worker is a process of its own.
      Client client = store.NewClient();
      results[i] = client
                       .SaveAsync("models/m", RowsOf(bytes, 1024, i * 512, (i + 1) * 512),
                                  Worker(i, 2, "together"))
                       .Durable(TestDeadline());
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (const auto& result : results) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->name, "models/m/checkpoints/1");
  }
  Client client = store.NewClient();
  EXPECT_EQ(support::Load(client, "models/m/checkpoints/1")->at("model:w"), bytes);
  auto rows = support::Load(client, "models/m/checkpoints/1",
                            {.slices = {{"model:w", 300, 700}}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->at("model:w"), bytes.substr(300 * 4096, 400 * 4096));
}

TEST(DistributedSaveTest, AnAbsentWorkerIsReportedAndNothingIsCommitted) {
  TestStore store;
  Client client = store.NewClient();
  const std::string bytes = RandomBytes(1, kMiB);
  SaveOptions options = Worker(0, 2, "alone");
  options.deadline = After(std::chrono::milliseconds(300));
  const absl::Status s = client.SaveAsync("models/m", RowsOf(bytes, 16, 0, 8), options)
                             .Durable(TestDeadline())
                             .status();
  EXPECT_EQ(s.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(s.message()), HasSubstr("1 of 2 contributions"));
  EXPECT_TRUE(client.ListCheckpoints("models/m")->empty());
}

TEST(DistributedSaveTest, WorkersNeedARequestIdAndAnIndexWithinTheirCount) {
  TestStore store;
  Client client = store.NewClient();
  for (const SaveOptions& options :
       {Worker(0, 2, ""), Worker(2, 2, "x"), Worker(-1, 2, "x"), Worker(0, 0, "x")}) {
    EXPECT_EQ(
        client.SaveAsync("models/m", {}, options).Durable(TestDeadline()).status().code(),
        absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace modelstore
