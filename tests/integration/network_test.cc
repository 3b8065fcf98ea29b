// Connections that are cut, stall or vanish, and servers that are killed, in the
// middle of a save or a load: the client library goes on, and the bytes are equal.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/internal/grpc_connection.h"
#include "tests/support/checkpoints.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"
#include "tests/support/tcp_proxy.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using support::TcpProxy;
using support::TensorSet;

constexpr char kModel[] = "models/m";

// Breaks a stream at a chosen message: cancels it just before that message would
// be sent or received.
class CuttingConnection final : public Connection {
 public:
  explicit CuttingConnection(std::shared_ptr<Connection> real) : real_(std::move(real)) {}

  // Message number `at` (1 is the next) over all streams is not passed on. 0: none.
  void CutAt(int64_t at) {
    messages_ = 0;
    at_ = at;
  }
  int64_t messages() const { return messages_; }
  bool was_cut() const { return at_ > 0 && messages_ >= at_; }

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    return real_->Call(method, std::move(request), deadline);
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    auto stream = real_->Open(method, lane, deadline);
    if (!stream.ok()) return stream;
    return std::unique_ptr<Stream>(new CuttingStream(*this, *std::move(stream)));
  }
  const ConnectOptions& options() const override { return real_->options(); }

 private:
  class CuttingStream final : public Stream {
   public:
    CuttingStream(CuttingConnection& connection, std::unique_ptr<Stream> real)
        : connection_(connection), real_(std::move(real)) {}
    absl::Status Write(std::string head, std::vector<Payload> payloads,
                       Deadline deadline) override {
      if (Cut()) return absl::UnavailableError("cut by the test");
      return real_->Write(std::move(head), std::move(payloads), deadline);
    }
    absl::Status WritesDone(Deadline deadline) override {
      if (Cut()) return absl::UnavailableError("cut by the test");
      return real_->WritesDone(deadline);
    }
    absl::StatusOr<ReceivedMessage> Read(Deadline deadline) override {
      if (Cut()) return absl::UnavailableError("cut by the test");
      return real_->Read(deadline);
    }
    absl::Status Finish(Deadline deadline) override {
      absl::Status s = real_->Finish(deadline);
      return cut_ ? absl::UnavailableError("cut by the test") : s;
    }
    void Cancel() override { real_->Cancel(); }

   private:
    bool Cut() {
      if (++connection_.messages_ == connection_.at_) {
        cut_ = true;
        real_->Cancel();
      }
      return cut_;
    }
    CuttingConnection& connection_;
    const std::unique_ptr<Stream> real_;
    bool cut_ = false;
  };

  const std::shared_ptr<Connection> real_;
  std::atomic<int64_t> messages_{0};
  std::atomic<int64_t> at_{0};
};

class NetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(), .data = "", .flags = {"--grace", "0s"}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    proxy_ = std::make_unique<TcpProxy>(server_->port());
    auto direct = support::ConnectTo(server_->address());
    ASSERT_TRUE(direct.ok()) << direct.status();
    direct_ = *direct;
  }

  // A save that shares nothing; checked past the proxy, and deleted.
  void SaveAndCheck(Client& client, const TensorSet& content, const std::string& what) {
    SaveOptions options;
    options.no_base = true;
    auto saved = support::Save(client, kModel, content, options);
    ASSERT_TRUE(saved.ok()) << what << ": " << saved.status();
    EXPECT_EQ(support::Verify(*direct_, saved->name, content), absl::OkStatus()) << what;
    auto list = direct_->ListCheckpoints(kModel);
    ASSERT_TRUE(list.ok());
    EXPECT_EQ(list->size(), 1u) << what << ": one save made other than one version";
    EXPECT_EQ(direct_->DeleteCheckpoint(saved->name), absl::OkStatus());
  }

  // Large enough for an upload of several messages on each stream.
  static TensorSet Large(uint64_t seed) {
    return TensorSet({.seed = seed, .tensors = 8, .bytes = 12 << 20});
  }
  static TensorSet Small(uint64_t seed) {
    return TensorSet({.seed = seed, .tensors = 8, .bytes = 300'000});
  }

  support::TempFolder folder_{"network"};
  std::unique_ptr<support::ServerProcess> server_;
  std::unique_ptr<TcpProxy> proxy_;
  std::optional<Client> direct_;
};

TEST_F(NetworkTest, ACutAtEveryMessageOfASaveOrLoadIsResumed) {
  ConnectOptions options;
  options.retry_timeout = milliseconds(20'000);
  auto real = internal::MakeGrpcConnection(server_->address(), options);
  ASSERT_TRUE(real.ok()) << real.status();
  auto connection = std::make_shared<CuttingConnection>(*real);
  Client client(connection);
  int64_t cuts[4] = {};
  int kind = 0;
  for (bool large : {true, false}) {
    for (int64_t n = 1;; ++n) {
      connection->CutAt(n);
      const TensorSet content = large ? Large(n) : Small(n);
      SaveAndCheck(client, content, absl::StrCat("save cut at message ", n));
      if (HasFatalFailure()) return;
      if (!connection->was_cut()) break;
      cuts[kind] = n;
    }
    ++kind;
    const TensorSet content = large ? Large(99) : Small(99);
    connection->CutAt(0);
    auto saved = support::Save(client, kModel, content);
    ASSERT_TRUE(saved.ok()) << saved.status();
    for (int64_t n = 1;; ++n) {
      connection->CutAt(n);
      EXPECT_EQ(support::Verify(client, saved->name, content), absl::OkStatus())
          << "load cut at message " << n;
      if (HasFailure()) return;
      if (!connection->was_cut()) break;
      cuts[kind] = n;
    }
    ++kind;
    EXPECT_EQ(direct_->DeleteCheckpoint(saved->name), absl::OkStatus());
  }
  std::printf(
      "cut at every message: %ld of an upload, %ld of its load, %ld of a one-stream "
      "save, %ld of its load\n",
      static_cast<long>(cuts[0]), static_cast<long>(cuts[1]), static_cast<long>(cuts[2]),
      static_cast<long>(cuts[3]));
  EXPECT_GT(cuts[0], 5);
  EXPECT_GT(cuts[1], 5);
}

TEST_F(NetworkTest, ACutAnywhereInTheBytesOfASaveIsResumed) {
  std::mt19937_64 random(TestSeed());
  auto client = support::ConnectTo(proxy_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  for (int i = 0; i < 30; ++i) {
    const TensorSet content = i % 5 == 4 ? Small(1'000 + i) : Large(1'000 + i);
    const auto fault = i % 2 == 0 ? TcpProxy::Fault::kReset : TcpProxy::Fault::kClose;
    const int64_t at =
        1 + static_cast<int64_t>(random() % static_cast<uint64_t>(content.total_bytes()));
    proxy_->FaultAfter(TcpProxy::kToServer, at, fault);
    SaveAndCheck(*client, content, absl::StrCat("save cut at byte ", at));
    if (HasFailure()) return;
  }
  std::printf("saves cut at a random byte: %d connections broken\n",
              proxy_->fault_count());
  EXPECT_GE(proxy_->fault_count(), 28);
}

TEST_F(NetworkTest, ACutAnywhereInTheBytesOfALoadIsResumed) {
  std::mt19937_64 random(TestSeed());
  const TensorSet content = Large(5);
  auto saved = support::Save(*direct_, kModel, content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto client = support::ConnectTo(proxy_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  for (int i = 0; i < 60; ++i) {
    const auto fault = i % 2 == 0 ? TcpProxy::Fault::kReset : TcpProxy::Fault::kClose;
    const int64_t at =
        1 + static_cast<int64_t>(random() % static_cast<uint64_t>(content.total_bytes()));
    proxy_->FaultAfter(TcpProxy::kToClient, at, fault);
    EXPECT_EQ(support::Verify(*client, saved->name, content), absl::OkStatus())
        << "load cut at byte " << at;
    if (HasFailure()) return;
  }
  std::printf("loads cut at a random byte: %d connections broken\n",
              proxy_->fault_count());
  EXPECT_GE(proxy_->fault_count(), 56);
}

TEST_F(NetworkTest, AConnectionThatBreaksAgainAndAgainStillGetsThere) {
  auto client = support::ConnectTo(proxy_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  const TensorSet content = Large(6);
  proxy_->FaultAfter(TcpProxy::kToServer, 3'300'000, TcpProxy::Fault::kReset, 1'000);
  SaveAndCheck(*client, content, "save over a connection that breaks each 3.3 MB");
  const int broken = proxy_->fault_count();
  EXPECT_GE(broken, 3);
  proxy_->ClearFault();
  auto saved = support::Save(*direct_, kModel, content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  proxy_->FaultAfter(TcpProxy::kToClient, 3'300'000, TcpProxy::Fault::kReset, 1'000);
  EXPECT_EQ(support::Verify(*client, saved->name, content), absl::OkStatus());
  std::printf("broken each 3.3 MB: %d times in a save, %d times in a load\n", broken,
              proxy_->fault_count() - broken);
  EXPECT_GE(proxy_->fault_count() - broken, 3);
}

TEST_F(NetworkTest, ANetworkThatGoesDeadIsNoticedAndLeft) {
  auto client =
      support::ConnectTo(proxy_->address(), milliseconds(30'000), milliseconds(500));
  ASSERT_TRUE(client.ok()) << client.status();
  const TensorSet content = Large(7);
  for (int64_t at : {100'000, 3'000'000, 9'000'000}) {
    proxy_->FaultAfter(TcpProxy::kToServer, at, TcpProxy::Fault::kStall);
    SaveAndCheck(*client, content, absl::StrCat("save stalled at byte ", at));
    if (HasFailure()) return;
  }
  auto saved = support::Save(*direct_, kModel, content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (int64_t at : {500, 3'000'000, 9'000'000}) {
    proxy_->FaultAfter(TcpProxy::kToClient, at, TcpProxy::Fault::kStall);
    EXPECT_EQ(support::Verify(*client, saved->name, content), absl::OkStatus())
        << "load stalled at byte " << at;
  }
  EXPECT_EQ(proxy_->fault_count(), 6);
}

TEST_F(NetworkTest, AServerKilledInTheMiddleOfAnUploadIsResumedAgainst) {
  auto client = support::ConnectTo(server_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  std::mt19937_64 random(TestSeed());
  int64_t reconnects = 0;
  for (int i = 0; i < 10; ++i) {
    const TensorSet content({.seed = random(), .tensors = 12, .bytes = 48 << 20});
    SaveOptions options;
    options.no_base = true;
    SaveHandle save = client->SaveAsync(kModel, content.Content(), options);
    std::this_thread::sleep_for(milliseconds(random() % 60));
    server_->Kill();
    std::this_thread::sleep_for(milliseconds(random() % 300));
    ASSERT_EQ(server_->Restart(), absl::OkStatus());
    auto saved = save.Durable(After(std::chrono::seconds(60)));
    ASSERT_TRUE(saved.ok()) << saved.status();
    reconnects += save.progress().reconnects;
    EXPECT_EQ(support::Verify(*client, saved->name, content), absl::OkStatus());
    EXPECT_EQ(client->DeleteCheckpoint(saved->name), absl::OkStatus());
  }
  std::printf("server killed in 10 uploads: %ld reconnects\n",
              static_cast<long>(reconnects));
  EXPECT_GE(reconnects, 1);
}

TEST_F(NetworkTest, AServerKilledInTheMiddleOfALoadIsResumedAgainst) {
  auto client = support::ConnectTo(server_->address());
  ASSERT_TRUE(client.ok()) << client.status();
  std::mt19937_64 random(TestSeed());
  const TensorSet content({.seed = 3, .tensors = 12, .bytes = 96 << 20});
  auto saved = support::Save(*client, kModel, content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (int i = 0; i < 10; ++i) {
    absl::Status status = absl::UnknownError("not run");
    std::thread load([&] { status = support::Verify(*client, saved->name, content); });
    std::this_thread::sleep_for(milliseconds(random() % 60));
    server_->Kill();
    const absl::Status restarted = server_->Restart();
    load.join();
    ASSERT_EQ(restarted, absl::OkStatus());
    EXPECT_EQ(status, absl::OkStatus());
  }
}

}  // namespace
}  // namespace modelstore
