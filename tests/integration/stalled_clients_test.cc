// Clients that stall or die: they cost their own streams, a bounded amount of the
// server's memory, and nothing once they are gone.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"
#include "tests/support/tcp_proxy.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using support::TcpProxy;

constexpr double kMemoryBoundMib = 256;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCanMeasureMemory = false;  // most of it belongs to the sanitizer
#else
constexpr bool kCanMeasureMemory = true;
#endif
constexpr int kStalled = kCanMeasureMemory ? 200 : 40;

double SecondsSince(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

class StalledClientsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(),
         .data = "",
         .flags = {"--grace", "0s", "--max-uploads-per-model", "1000"}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *client;
    // Everything has run once: what it allocates for good is not the clients'.
    SaveAndLoad(1);
    std::this_thread::sleep_for(milliseconds(500));
    idle_mib_ = support::RssAnonMib(server_->pid());
  }

  // Seconds that a healthy client needs to save and load 64 MiB.
  double SaveAndLoad(uint64_t seed) {
    const support::TensorSet content({.seed = seed, .tensors = 20, .bytes = 64 << 20});
    const auto start = steady_clock::now();
    SaveOptions options;
    options.no_base = true;
    auto saved = support::Save(*client_, "models/healthy", content, options);
    EXPECT_TRUE(saved.ok()) << saved.status();
    if (!saved.ok()) return 0;
    EXPECT_EQ(support::Verify(*client_, saved->name, content), absl::OkStatus());
    const double seconds = SecondsSince(start);
    EXPECT_EQ(client_->DeleteCheckpoint(saved->name), absl::OkStatus());
    return seconds;
  }

  // Waits until no stream runs and the memory is back; tells what is left over idle.
  double MemoryLeft() {
    const auto deadline = steady_clock::now() + std::chrono::seconds(30);
    double left = 0;
    auto stats = server_->Stats();
    for (; steady_clock::now() < deadline; stats = server_->Stats()) {
      left = support::RssAnonMib(server_->pid()) - idle_mib_;
      if (stats.ok() && stats->active_save_streams() == 0 &&
          stats->buffered_bytes() == 0 &&
          (!kCanMeasureMemory || left < kMemoryBoundMib / 2)) {
        return left;
      }
      std::this_thread::sleep_for(milliseconds(100));
    }
    ADD_FAILURE() << "streams or memory did not go away: " << stats.status() << " "
                  << (stats.ok() ? stats->ShortDebugString() : "");
    return left;
  }

  // Waits until every upload has come to its stall, or none has moved for 3 s: a
  // server short of memory leaves the others waiting. Tells how many stalled.
  static int CountStalledStreams(const TcpProxy& proxy) {
    int64_t passed = -1;
    while (proxy.fault_count() < kStalled &&
           passed != proxy.passed(TcpProxy::kToServer)) {
      passed = proxy.passed(TcpProxy::kToServer);
      std::this_thread::sleep_for(std::chrono::seconds(3));
    }
    return proxy.fault_count();
  }

  support::TempFolder folder_{"stalled"};
  std::unique_ptr<support::ServerProcess> server_;
  std::optional<Client> client_;
  double idle_mib_ = 0;
};

// One upload of chunks without end, which its proxy stalls sooner or later.
class EndlessUpload {
 public:
  EndlessUpload(const std::string& address, const std::string& upload, uint64_t seed)
      : thread_([this, address, upload, seed] { Run(address, upload, seed); }) {}
  ~EndlessUpload() {
    context_.TryCancel();
    thread_.join();
  }

 private:
  void Run(const std::string& address, const std::string& upload, uint64_t seed) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
    support::RawClient raw(channel);
    v1::UploadChunksResponse response;
    const auto writer = raw.transfer().UploadChunks(&context_, &response);
    v1::UploadChunksRequest message;
    message.set_upload(upload);
    for (uint64_t i = 0; writer->Write(message); ++i) {
      message = support::ChunkMessage(support::RandomBytes(seed + i, size_t{4} << 20));
    }
    (void)writer->Finish();
  }

  support::Context context_{milliseconds(120'000)};
  std::thread thread_;
};

std::string NewUpload(support::ServerProcess& server, int index) {
  support::RawClient raw(server.NewChannel());
  v1::Upload upload;
  const grpc::Status s =
      raw.CreateUpload("models/stalled", absl::StrCat("r", index), &upload);
  EXPECT_TRUE(s.ok()) << s.error_message();
  return upload.name();
}

TEST_F(StalledClientsTest,
       TwoHundredStalledUploadsAffectNoOthersAndTheirMemoryComesBack) {
  const double alone = SaveAndLoad(2);
  support::RssSampler sampler(server_->pid());
  double beside = 0;
  {
    TcpProxy proxy(server_->port());
    // Somewhere within its second to fourth chunk, each.
    proxy.FaultAfter(TcpProxy::kToServer, 5'500'000, TcpProxy::Fault::kStall, kStalled);
    std::vector<std::string> names;
    for (int i = 0; i < kStalled; ++i) names.push_back(NewUpload(*server_, i));
    std::vector<std::unique_ptr<EndlessUpload>> uploads;
    for (int i = 0; i < kStalled; ++i) {
      uploads.push_back(
          std::make_unique<EndlessUpload>(proxy.address(), names[i], 1'000 * (i + 1)));
    }
    std::printf("stalled by the network: %d of %d\n", CountStalledStreams(proxy),
                kStalled);
    for (uint64_t seed : {3, 4, 5}) beside = std::max(beside, SaveAndLoad(seed));
    const auto asked = steady_clock::now();
    EXPECT_EQ(support::CheckHealth(server_->NewChannel(), milliseconds(5'000)),
              absl::OkStatus());
    std::printf("health beside %d stalled uploads: %.1f ms\n", kStalled,
                SecondsSince(asked) * 1e3);
  }
  const double left = MemoryLeft();
  std::printf(
      "stalled uploads: %d; RssAnon over idle (%.0f MiB): peak %.0f MiB, afterwards "
      "%.0f MiB; healthy save and load of 64 MiB: %.2f s alone, %.2f s beside them\n",
      kStalled, idle_mib_, sampler.peak_mib() - idle_mib_, left, alone, beside);
  if (kCanMeasureMemory) {
    EXPECT_LE(sampler.peak_mib() - idle_mib_, kMemoryBoundMib);
  }
  SaveAndLoad(6);
}

TEST_F(StalledClientsTest, TwoHundredLoadsThatNobodyReadsAffectNoOthers) {
  const support::TensorSet content({.seed = 9, .tensors = 10, .bytes = 64 << 20});
  auto saved = support::Save(*client_, "models/m", content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  const double alone = SaveAndLoad(8);
  double beside = 0;
  support::RssSampler sampler(server_->pid());
  {
    // Streams that are opened and never read from: flow control stops each.
    const auto channel_of = [&](int) {
      grpc::ChannelArguments args;
      args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      return grpc::CreateCustomChannel(server_->address(),
                                       grpc::InsecureChannelCredentials(), args);
    };
    struct Unread {
      std::shared_ptr<grpc::Channel> channel;
      support::Context context{milliseconds(60'000)};
      std::unique_ptr<v1::CheckpointTransfer::Stub> stub;
      std::unique_ptr<grpc::ClientReader<v1::LoadCheckpointResponse>> reader;
      ~Unread() {
        context.TryCancel();
        (void)reader->Finish();
      }
    };
    v1::LoadCheckpointRequest request;
    request.set_name(saved->name);
    std::vector<std::unique_ptr<Unread>> unread;
    for (int i = 0; i < kStalled; ++i) {
      auto one = std::make_unique<Unread>();
      one->channel = channel_of(i);
      one->stub = v1::CheckpointTransfer::NewStub(one->channel);
      one->reader = one->stub->LoadCheckpoint(&one->context, request);
      one->reader->WaitForInitialMetadata();
      unread.push_back(std::move(one));
    }
    beside = SaveAndLoad(10);
  }
  const double left = MemoryLeft();
  std::printf(
      "unread loads: %d; RssAnon over idle: peak %.0f MiB, afterwards %.0f MiB; healthy "
      "save and load of 64 MiB: %.2f s alone, %.2f s beside them\n",
      kStalled, sampler.peak_mib() - idle_mib_, left, alone, beside);
  if (kCanMeasureMemory) {
    EXPECT_LE(sampler.peak_mib() - idle_mib_, kMemoryBoundMib);
  }
}

TEST_F(StalledClientsTest, ClientsThatDieInTheirStreamsLeaveNothingRunning) {
  support::RssSampler sampler(server_->pid());
  constexpr int kDeaths = 100;
  {
    TcpProxy proxy(server_->port());
    proxy.FaultAfter(TcpProxy::kToServer, 2'700'000, TcpProxy::Fault::kReset, kDeaths);
    for (int i = 0; i < kDeaths; i += 10) {
      std::vector<std::unique_ptr<EndlessUpload>> uploads;
      for (int k = i; k < i + 10; ++k) {
        uploads.push_back(std::make_unique<EndlessUpload>(
            proxy.address(), NewUpload(*server_, 10'000 + k), 77'000 + k));
      }
      const auto deadline = steady_clock::now() + std::chrono::seconds(30);
      while (proxy.fault_count() < i + 10 && steady_clock::now() < deadline) {
        std::this_thread::sleep_for(milliseconds(5));
      }
      ASSERT_GE(proxy.fault_count(), i + 10);
    }
  }
  const double left = MemoryLeft();
  std::printf("dead clients: %d; RssAnon over idle: peak %.0f MiB, afterwards %.0f MiB\n",
              kDeaths, sampler.peak_mib() - idle_mib_, left);
  // What they had brought is sealed; deleting the uploads gives the space back.
  EXPECT_EQ(client_->DeleteModel("models/stalled", {.force = true}), absl::OkStatus());
  ASSERT_TRUE(server_->CollectGarbage().ok());
  auto stats = server_->Stats();
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->pack_bytes(), 0);
  SaveAndLoad(11);
}

TEST(DeadNetworkTest, AConnectionThatNoLongerAnswersIsEndedByItsProbe) {
  const support::TempFolder folder("dead_network");
  auto server = support::ServerProcess::Start(
      {.folder = folder.path(), .data = "", .flags = {"--keepalive-time", "1s"}});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string upload = NewUpload(**server, 0);
  TcpProxy proxy((*server)->port());
  support::RawClient raw(
      grpc::CreateChannel(proxy.address(), grpc::InsecureChannelCredentials()));
  support::Context context(milliseconds(120'000));
  v1::UploadChunksResponse response;
  const auto writer = raw.transfer().UploadChunks(&context, &response);
  v1::UploadChunksRequest message;
  message.set_upload(upload);
  ASSERT_TRUE(writer->Write(message));
  // Answering its probes it lives on.
  std::this_thread::sleep_for(milliseconds(6'000));
  auto stats = (*server)->Stats();
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->active_save_streams(), 1);

  // The server probes after a second of silence and gives the answer 20.
  proxy.FaultAfter(TcpProxy::kToServer, 1, TcpProxy::Fault::kStall);
  const auto start = steady_clock::now();
  while (SecondsSince(start) < 60 && stats.ok() && stats->active_save_streams() > 0) {
    std::this_thread::sleep_for(milliseconds(200));
    stats = (*server)->Stats();
  }
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->active_save_streams(), 0);
  std::printf("a dead connection ended after %.1f s\n", SecondsSince(start));
  context.TryCancel();
  (void)writer->Finish();
}

}  // namespace
}  // namespace modelstore
