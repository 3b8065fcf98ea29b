// SIGKILL and a cut connection in the middle of a modification, over the real
// store: the version that was modified stays whole, the new one is there or it is
// not, the same request makes it once, and nothing else is left on the disk.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "modelstore/modify.h"
#include "modelstore/v1/operations.pb.h"
#include "tests/support/checkpoints.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using support::TensorSet;

constexpr char kOld[] = "models/m/checkpoints/1";
constexpr int64_t kBytes = int64_t{48} << 20;

class ModifyCrashTest : public ::testing::Test {
 protected:
  ModifyCrashTest() {
    // Floats around 1: no NaN, whose bits a cast there and back may change.
    std::mt19937_64 random(TestSeed());
    for (int t = 0; t < 6; ++t) {
      std::vector<uint32_t> words(kBytes / 6 / 4);
      for (uint32_t& word : words) word = 0x3f800000 | (random() & 0x7fffff);
      TensorInfo info;
      info.key = absl::StrCat("w", t);
      info.shape = {static_cast<int64_t>(words.size())};
      info.size_bytes = static_cast<int64_t>(words.size()) * 4;
      content_.Add(info, {reinterpret_cast<char*>(words.data()), words.size() * 4});
    }
  }
  void SetUp() override {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(), .data = "", .flags = {"--grace", "0s"}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    auto saved = support::Save(*client, "models/m", content_);
    ASSERT_TRUE(saved.ok()) << saved.status();
    ASSERT_EQ(saved->name, kOld);
    pack_bytes_ = PackBytes();
  }
  int64_t PackBytes() {
    EXPECT_TRUE(server_->CollectGarbage().ok());
    auto stats = server_->Stats();
    EXPECT_TRUE(stats.ok()) << stats.status();
    return stats.ok() ? stats->pack_bytes() : -1;
  }
  static ModifyOptions Request(int round) {
    ModifyOptions options;
    options.request_id = absl::StrCat("round-", round);
    return options;
  }
  static EditList Edits() {
    return EditList().Cast(DType::kFloat64).RenameKeys("w(.)", "v\\1");
  }

  support::TempFolder folder_{"modify-crash"};
  std::unique_ptr<support::ServerProcess> server_;
  TensorSet content_;
  int64_t pack_bytes_ = 0;
};

TEST_F(ModifyCrashTest, KilledAtAnyMomentItLeavesTheOldVersionAndAtMostTheNewOne) {
  std::mt19937_64 random(TestSeed());
  const int rounds = TestRounds(8);
  int committed = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    // Kept here, so that no retry reaches the server that comes afterwards.
    std::thread caller([&, address = server_->address()] {
      auto client = support::ConnectTo(address, milliseconds(0));
      if (client.ok()) {
        ModifyCheckpoint(*client, kOld, Edits(), Request(round)).status().IgnoreError();
      }
    });
    std::this_thread::sleep_for(milliseconds(random() % 200));
    server_->Kill();
    caller.join();
    ASSERT_EQ(server_->Restart(), absl::OkStatus()) << server_->LogTail();
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    ASSERT_EQ(support::Verify(*client, kOld, content_), absl::OkStatus());
    const int64_t latest = client->GetModel("models/m")->latest_version.value_or(0);
    auto made = ModifyCheckpoint(*client, kOld, Edits(), Request(round));
    ASSERT_TRUE(made.ok()) << made.status();
    if (latest != 1) {
      ++committed;
      EXPECT_EQ(made->checkpoint.version, latest) << "one request, two versions";
    }
    // Cast back, it is the old one again, under the new names.
    auto back =
        ModifyCheckpoint(*client, made->checkpoint.name,
                         EditList().Cast(DType::kFloat32).RenameKeys("v(.)", "w\\1"));
    ASSERT_TRUE(back.ok()) << back.status();
    ASSERT_EQ(support::Verify(*client, back->checkpoint.name, content_),
              absl::OkStatus());
    for (const std::string& name : {made->checkpoint.name, back->checkpoint.name}) {
      ASSERT_EQ(client->DeleteCheckpoint(name), absl::OkStatus());
    }
    EXPECT_EQ(PackBytes(), pack_bytes_) << "something of it stayed";
    if (HasFailure()) break;
  }
  std::printf("modify: %d kills, %d of them after the commit\n", rounds, committed);
}

TEST_F(ModifyCrashTest, CancelledByItsCallerItLeavesNothing) {
  std::mt19937_64 random(TestSeed());
  auto stub = v1::ModelStore::NewStub(server_->NewChannel());
  int cancelled = 0;
  for (int round = 0; round < 10; ++round) {
    grpc::ClientContext context;
    v1::ModifyCheckpointRequest request;
    request.set_name(kOld);
    request.add_edits()->mutable_cast()->set_dtype(v1::DTYPE_FLOAT64);
    auto stream = stub->ModifyCheckpoint(&context, request);
    v1::ModifyCheckpointResponse response;
    bool done = false;
    const uint64_t messages = random() % 5;
    for (uint64_t m = 0; m < messages && stream->Read(&response); ++m) {
      done = response.has_result();
    }
    context.TryCancel();
    while (stream->Read(&response)) done = done || response.has_result();
    stream->Finish();
    if (!done) ++cancelled;
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    // The server notices within a step; what it had committed before is whole.
    for (int wait = 0; wait < 100; ++wait) {
      const int64_t latest = client->GetModel("models/m")->latest_version.value_or(0);
      if (latest != 1) {
        ASSERT_EQ(client->DeleteCheckpoint(absl::StrCat("models/m/checkpoints/", latest)),
                  absl::OkStatus());
      }
      if (PackBytes() == pack_bytes_) break;
      std::this_thread::sleep_for(milliseconds(50));
    }
    ASSERT_EQ(PackBytes(), pack_bytes_);
  }
  EXPECT_GT(cancelled, 0);
}

}  // namespace
}  // namespace modelstore
