// SIGTERM: running streams finish up to a deadline, new calls are turned away, and
// clients go on with the server that comes after.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using support::RawTensor;
using support::TensorSet;

constexpr char kModel[] = "models/m";

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

class ShutdownTest : public ::testing::Test {
 protected:
  void Start(const std::string& deadline) {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(),
         .data = "",
         .flags = {"--grace", "0s", "--shutdown-deadline", deadline}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    raw_ = std::make_unique<support::RawClient>(server_->NewChannel());
  }

  // The exit status, which must be 0.
  void ExpectCleanEnd(milliseconds timeout) {
    auto status = server_->WaitForExit(timeout);
    ASSERT_TRUE(status.ok()) << status.status();
    EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 0) << *status << "\n"
                                                                 << server_->LogTail();
  }

  support::TempFolder folder_{"shutdown"};
  std::unique_ptr<support::ServerProcess> server_;
  std::unique_ptr<support::RawClient> raw_;
};

TEST_F(ShutdownTest, AnIdleServerEndsAtOnce) {
  Start("30s");
  const auto start = steady_clock::now();
  server_->Terminate();
  ExpectCleanEnd(milliseconds(5'000));
  std::printf("idle server: ended %.2f s after SIGTERM\n", SecondsSince(start));
}

TEST_F(ShutdownTest, AnUploadUnderWayAtSigtermFinishes) {
  Start("30s");
  v1::Upload upload;
  ASSERT_TRUE(raw_->CreateUpload(kModel, "r", &upload).ok());
  const RawTensor t("t", 1, 500'000, 10);
  support::Context context;
  v1::UploadChunksResponse response;
  const auto writer = raw_->transfer().UploadChunks(&context, &response);
  v1::UploadChunksRequest first;
  first.set_upload(upload.name());
  *first.mutable_manifest()->add_tensors() = t.tensor;
  first.set_manifest_complete(true);
  ASSERT_TRUE(writer->Write(first));
  const auto start = steady_clock::now();
  for (size_t i = 0; i < t.chunks.size(); ++i) {
    ASSERT_TRUE(writer->Write(support::ChunkMessage(t.chunks[i]))) << "chunk " << i;
    if (i == 4) server_->Terminate();
    std::this_thread::sleep_for(milliseconds(100));
  }
  writer->WritesDone();
  const grpc::Status s = writer->Finish();
  EXPECT_TRUE(s.ok()) << s.error_message();
  EXPECT_EQ(response.received_chunks(), 10);
  ExpectCleanEnd(milliseconds(10'000));
  std::printf("upload under way: finished, server ended %.2f s after SIGTERM\n",
              SecondsSince(start) - 0.5);

  // What it brought is there after the restart.
  ASSERT_EQ(server_->Restart(), absl::OkStatus());
  support::RawClient raw(server_->NewChannel());
  v1::Checkpoint made;
  const grpc::Status committed = raw.Commit(upload.name(), &made);
  ASSERT_TRUE(committed.ok()) << committed.error_message();
}

TEST_F(ShutdownTest, ALoadUnderWayAtSigtermFinishes) {
  Start("30s");
  auto client = support::ConnectTo(server_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  const TensorSet content({.seed = 4, .tensors = 10, .bytes = 48 << 20});
  auto saved = support::Save(*client, kModel, content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  v1::LoadCheckpointRequest request;
  request.set_name(saved->name);
  support::Context context;
  const auto reader = raw_->transfer().LoadCheckpoint(&context, request);
  v1::LoadCheckpointResponse response;
  int64_t bytes = 0;
  while (bytes == 0 && reader->Read(&response)) {
    bytes += static_cast<int64_t>(response.data().size());
  }
  server_->Terminate();
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_TRUE(server_->Running());
  while (reader->Read(&response)) bytes += static_cast<int64_t>(response.data().size());
  const grpc::Status s = reader->Finish();
  EXPECT_TRUE(s.ok()) << s.error_message();
  EXPECT_EQ(bytes, content.total_bytes());
  ExpectCleanEnd(milliseconds(10'000));
}

TEST_F(ShutdownTest, NewCallsAreTurnedAwayWhileTheOldFinish) {
  Start("30s");
  v1::Upload upload;
  ASSERT_TRUE(raw_->CreateUpload(kModel, "r", &upload).ok());
  support::Context context;
  v1::UploadChunksResponse response;
  const auto writer = raw_->transfer().UploadChunks(&context, &response);
  v1::UploadChunksRequest first;
  first.set_upload(upload.name());
  ASSERT_TRUE(writer->Write(first));
  // The stream has begun at the server.
  auto stats = server_->Stats();
  const auto deadline = steady_clock::now() + std::chrono::seconds(5);
  while (stats.ok() && stats->active_save_streams() == 0 &&
         steady_clock::now() < deadline) {
    stats = server_->Stats();
  }
  server_->Terminate();
  std::this_thread::sleep_for(milliseconds(500));
  ASSERT_TRUE(server_->Running());
  support::Context other(milliseconds(2'000));
  v1::ServerInfo info;
  const grpc::Status refused =
      support::RawClient(server_->NewChannel()).store().GetServerInfo(&other, {}, &info);
  EXPECT_FALSE(refused.ok());
  writer->Write(support::ChunkMessage("the last"));
  writer->WritesDone();
  const grpc::Status s = writer->Finish();
  EXPECT_TRUE(s.ok()) << s.error_message();
  ExpectCleanEnd(milliseconds(10'000));
}

TEST_F(ShutdownTest, AStreamOpenAtTheDeadlineIsCutAndItsChunksAreKept) {
  Start("1s");
  v1::Upload upload;
  ASSERT_TRUE(raw_->CreateUpload(kModel, "r", &upload).ok());
  const RawTensor t("t", 1, 500'000, 4);
  support::Context context;
  v1::UploadChunksResponse response;
  const auto writer = raw_->transfer().UploadChunks(&context, &response);
  v1::UploadChunksRequest first;
  first.set_upload(upload.name());
  ASSERT_TRUE(writer->Write(first));
  for (int i = 0; i < 2; ++i)
    ASSERT_TRUE(writer->Write(support::ChunkMessage(t.chunks[i])));
  std::this_thread::sleep_for(milliseconds(300));
  const auto start = steady_clock::now();
  server_->Terminate();
  const grpc::Status s = writer->Finish();
  EXPECT_EQ(s.error_code(), grpc::StatusCode::UNAVAILABLE) << s.error_message();
  ExpectCleanEnd(milliseconds(10'000));
  const double seconds = SecondsSince(start);
  std::printf("stream without end: server ended %.2f s after SIGTERM (deadline 1 s)\n",
              seconds);
  EXPECT_GE(seconds, 0.9);
  EXPECT_LE(seconds, 5.0);
  ASSERT_EQ(server_->Restart(), absl::OkStatus());
  support::RawClient raw(server_->NewChannel());
  std::vector<int> missing;
  ASSERT_TRUE(raw.FindMissing(upload.name(), t.chunks, &missing).ok());
  EXPECT_EQ(missing, (std::vector<int>{2, 3}));
}

TEST_F(ShutdownTest, ASaveThatRunsAcrossTheRestartIsResumed) {
  Start("100ms");
  auto client = support::ConnectTo(server_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  for (uint64_t seed : {1, 2, 3, 4, 5}) {
    const TensorSet content({.seed = seed, .tensors = 10, .bytes = 64 << 20});
    SaveOptions options;
    options.no_base = true;
    SaveHandle save = client->SaveAsync(kModel, content.Content(), options);
    std::this_thread::sleep_for(milliseconds(10 * seed));
    server_->Terminate();
    ExpectCleanEnd(milliseconds(20'000));
    ASSERT_EQ(server_->Restart(), absl::OkStatus());
    auto saved = save.Durable(After(std::chrono::seconds(60)));
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(support::Verify(*client, saved->name, content), absl::OkStatus());
    EXPECT_EQ(client->DeleteCheckpoint(saved->name), absl::OkStatus());
  }
}

}  // namespace
}  // namespace modelstore
