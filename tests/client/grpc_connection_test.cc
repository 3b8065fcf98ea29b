// The real connection: what only a network and gRPC's own threads can hurt.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "modelstore/lifecycle.h"
#include "tests/support/checkpoints.h"
#include "tests/support/server_process.h"
#include "tests/support/tcp_proxy.h"
#include "tests/support/temp_folder.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using support::ServerProcess;
using support::TcpProxy;
using support::TensorSet;

constexpr int64_t kMiB = int64_t{1} << 20;

Deadline TestDeadline() { return After(std::chrono::seconds(60)); }

class GrpcConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = ServerProcess::Start({.folder = folder_.path()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  support::TempFolder folder_{"grpc_connection"};
  std::unique_ptr<ServerProcess> server_;
};

TEST_F(GrpcConnectionTest, ManyStreamsCarryOneCheckpoint) {
  for (const int streams : {1, 2, 5}) {
    ConnectOptions options;
    options.streams = streams;
    auto client = Client::Connect(server_->address(), options);
    ASSERT_TRUE(client.ok()) << client.status();
    const TensorSet state(
        {.seed = static_cast<uint64_t>(streams), .tensors = 30, .bytes = 60 * kMiB});
    auto info = support::Save(*client, "models/m", state);
    ASSERT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(support::Verify(*client, info->name, state), absl::OkStatus());
  }
}

TEST_F(GrpcConnectionTest, AServerThatDoesNotExistIsReportedInTime) {
  server_->Kill();
  ConnectOptions options;
  options.deadline = After(milliseconds(400));
  const auto start = std::chrono::steady_clock::now();
  const absl::Status s = Client::Connect(server_->address(), options).status();
  EXPECT_FALSE(s.ok());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << s;
}

TEST_F(GrpcConnectionTest, ANumberOfStreamsWithoutSenseIsRefused) {
  for (const int streams : {0, -1, 1000}) {
    ConnectOptions options;
    options.streams = streams;
    EXPECT_EQ(Client::Connect(server_->address(), options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// A save whose network dies while bytes of the caller's are on their way: once
// Durable() has returned, the caller may free them.
TEST_F(GrpcConnectionTest, AfterAFailedSaveNothingReadsTheCallersMemory) {
  constexpr size_t kBytes = 32 * kMiB;
  for (int round = 0; round < 3; ++round) {
    TcpProxy proxy(server_->port());
    auto client = support::ConnectTo(proxy.address(), milliseconds(0), milliseconds(300));
    ASSERT_TRUE(client.ok()) << client.status();
    void* const memory =
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    for (size_t i = 0; i < kBytes; i += 8) {
      *reinterpret_cast<uint64_t*>(static_cast<char*>(memory) + i) =
          i * 0x9E3779B97F4A7C15u;
    }
    TensorView view;
    view.info.key = "w";
    view.info.dtype = DType::kUint8;
    view.info.shape = {kBytes};
    view.info.size_bytes = kBytes;
    view.data = memory;
    view.immutable = true;
    SaveContent content;
    content.tensors = {view};
    proxy.FaultAfter(TcpProxy::kToServer, (3 + round) * 1'000'000,
                     TcpProxy::Fault::kStall, 100);
    const absl::Status s = client->SaveAsync("models/m", std::move(content))
                               .Durable(TestDeadline())
                               .status();
    EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable) << s;
    munmap(memory, kBytes);
    // Whatever was still to be sent would be read now.
    proxy.ClearFault();
    std::this_thread::sleep_for(milliseconds(100));
  }
}

TEST_F(GrpcConnectionTest, OwnersAreReleasedAfterAFailedSave) {
  TcpProxy proxy(server_->port());
  auto client = support::ConnectTo(proxy.address(), milliseconds(0), milliseconds(300));
  ASSERT_TRUE(client.ok()) << client.status();
  const auto owner = std::make_shared<std::string>(32 * kMiB, 'x');
  for (size_t i = 0; i < owner->size(); i += kMiB)
    (*owner)[i] = static_cast<char>(i >> 20);
  TensorView view;
  view.info.key = "w";
  view.info.dtype = DType::kUint8;
  view.info.shape = {32 * kMiB};
  view.info.size_bytes = 32 * kMiB;
  view.data = owner->data();
  view.owner = owner;
  view.immutable = true;
  SaveContent content;
  content.tensors = {view};
  view.owner.reset();
  proxy.FaultAfter(TcpProxy::kToServer, 3'000'000, TcpProxy::Fault::kStall, 100);
  EXPECT_FALSE(
      client->SaveAsync("models/m", std::move(content)).Durable(TestDeadline()).ok());
  for (int i = 0; i < 1000 && owner.use_count() > 1; ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(owner.use_count(), 1);
}

TEST_F(GrpcConnectionTest, AForkedChildIsRefusedAndTheParentContinues) {
  auto connected = support::ConnectTo(server_->address());
  ASSERT_TRUE(connected.ok()) << connected.status();
  auto client = std::make_unique<Client>(*std::move(connected));
  connected = absl::UnknownError("moved");
  const TensorSet state({.seed = 1, .tensors = 4, .bytes = 2 * kMiB});
  ASSERT_TRUE(support::Save(*client, "models/m", state).ok());
  const pid_t child = fork();
  if (child == 0) {
    const bool refused =
        absl::IsFailedPrecondition(client->GetModel("models/m").status());
    // Connecting anew would hang in gRPC.
    const bool told =
        absl::IsFailedPrecondition(Client::Connect(server_->address()).status());
    client.reset();
    _exit(refused && told ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(support::Verify(*client, "models/m/checkpoints/1", state), absl::OkStatus());
}

TEST_F(GrpcConnectionTest, AWatcherWaitsInShortStepsAndOutlivesTheServersDeath) {
  auto client = support::ConnectTo(server_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  const TensorSet state({.seed = 1, .tensors = 2, .bytes = 1000});
  ASSERT_TRUE(support::Save(*client, "models/m", state).ok());
  auto watcher = ModelWatcher::Open(*client, "models/m");
  ASSERT_TRUE(watcher.ok()) << watcher.status();
  ASSERT_TRUE(watcher->Next(TestDeadline()).ok());
  // What comes while nobody waits is there for the next who does.
  for (int64_t round = 0; round < 20; ++round) {
    for (int i = 0; i < 5; ++i) {
      EXPECT_TRUE(
          absl::IsDeadlineExceeded(watcher->Next(After(milliseconds(2))).status()));
    }
    ASSERT_TRUE(SetAlias(*client, absl::StrCat("models/m/aliases/a", round), 1).ok());
    auto event = watcher->Next(TestDeadline());
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->alias_move.alias, absl::StrCat("a", round));
  }
  ASSERT_TRUE(SetAlias(*client, "models/m/aliases/before", 1).ok());
  server_->Kill();
  ASSERT_TRUE(server_->Restart().ok());
  ASSERT_TRUE(SetAlias(*client, "models/m/aliases/after", 1).ok());
  for (const char* alias : {"before", "after"}) {
    auto event = watcher->Next(TestDeadline());
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->alias_move.alias, alias);
  }
}

}  // namespace
}  // namespace modelstore
