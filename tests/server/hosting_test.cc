// What surrounds the RPCs: health, reflection, ports, and the pool at its limit.
#include <algorithm>
#include <fstream>
#include <future>
#include <thread>

#include "grpcpp/generic/generic_stub.h"
#include "proto/contract/errors.h"
#include "proto/contract/status_codec.h"
#include "server/health_command.h"
#include "server/rpc/byte_buffers.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

// Every call blocks, as on a disk that hangs, until released.
class BlockedService final : public Service {
 public:
  explicit BlockedService(std::shared_future<void> released)
      : released_(std::move(released)) {}

  std::optional<MethodKind> Find(absl::string_view) const override {
    return MethodKind::kUnary;
  }
  absl::StatusOr<std::string> Call(absl::string_view, absl::string_view) override {
    ++blocked;
    released_.wait();
    return std::string();
  }
  absl::StatusOr<std::unique_ptr<InboundSession>> OpenInbound(
      absl::string_view) override {
    ++blocked;
    released_.wait();
    return absl::UnavailableError("released");
  }
  absl::StatusOr<std::unique_ptr<OutboundSession>> OpenOutbound(
      absl::string_view, absl::string_view) override {
    ++blocked;
    released_.wait();
    return absl::UnavailableError("released");
  }

  std::atomic<int> blocked = 0;

 private:
  const std::shared_future<void> released_;
};

TEST(HostingTest, HealthAnswersWhileEveryStorageThreadIsBlocked) {
  std::promise<void> release;
  auto service = std::make_unique<BlockedService>(release.get_future().share());
  BlockedService* blocked = service.get();
  ServerConfig config = TestConfig();
  config.storage_threads = 4;
  GrpcHarness harness(config, std::move(service));
  // Several times as many calls as threads, of each kind.
  std::vector<std::thread> callers;
  for (int i = 0; i < 12; ++i) {
    callers.emplace_back([&harness, i] {
      Context context;
      auto channel = harness.NewChannel();
      auto store = v1::ModelStore::NewStub(channel);
      auto transfer = v1::CheckpointTransfer::NewStub(channel);
      if (i % 3 == 0) {
        v1::Stats stats;
        store->GetStats(&context, {}, &stats);
      } else if (i % 3 == 1) {
        v1::LoadCheckpointResponse response;
        transfer->LoadCheckpoint(&context, {})->Read(&response);
      } else {
        v1::Checkpoint checkpoint;
        auto stream = transfer->SaveCheckpoint(&context, &checkpoint);
        stream->Write({});
        stream->WritesDone();
        stream->Finish();
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return blocked->blocked == 4; }));
  double worst_ms = 0;
  for (int i = 0; i < 20; ++i) {
    const absl::Time begin = absl::Now();
    const absl::Status health = CheckHealth(harness.server().address(), absl::Seconds(5));
    EXPECT_TRUE(health.ok()) << health;
    worst_ms = std::max(worst_ms, absl::ToDoubleMilliseconds(absl::Now() - begin));
  }
  std::printf("health with every storage thread blocked: at most %.1f ms\n", worst_ms);
  EXPECT_EQ(blocked->blocked, 4) << "the threads were blocked all the while";
  release.set_value();
  for (std::thread& caller : callers) caller.join();
}

// UNAVAILABLE, and the answer says that it is an overload and how long to wait.
bool IsRefusedForNow(const grpc::Status& status) {
  const absl::Status refused = FromGrpcStatus(status);
  return IsOverloaded(refused) && RetryDelay(refused) > absl::ZeroDuration();
}

TEST(HostingTest, AFullQueueReportsARetryDelay) {
  std::promise<void> release;
  auto service = std::make_unique<BlockedService>(release.get_future().share());
  BlockedService* blocked = service.get();
  ServerConfig config = TestConfig();
  config.storage_threads = 1;
  config.max_queue = 2;
  GrpcHarness harness(config, std::move(service));
  std::vector<std::thread> callers;
  std::atomic<int> refused = 0;
  const auto call = [&] {
    Context context;
    v1::Stats stats;
    const grpc::Status status = harness.store().GetStats(&context, {}, &stats);
    if (IsRefusedForNow(status)) ++refused;
  };
  callers.emplace_back(call);
  EXPECT_TRUE(Eventually([&] { return blocked->blocked == 1; }));
  for (int i = 0; i < 7; ++i) callers.emplace_back(call);
  EXPECT_TRUE(Eventually([&] { return refused == 5; }));
  release.set_value();
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(refused, 5);
}

TEST(HostingTest, MoreStreamsThanTheLimitAreRefused) {
  ServerConfig config = TestConfig();
  config.max_streams = 2;
  GrpcHarness harness(config);
  std::vector<std::unique_ptr<Context>> contexts;
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::SaveCheckpointRequest>>> streams;
  v1::Checkpoint checkpoints[2];
  for (v1::Checkpoint& checkpoint : checkpoints) {
    contexts.push_back(std::make_unique<Context>());
    streams.push_back(
        harness.transfer().SaveCheckpoint(contexts.back().get(), &checkpoint));
  }
  EXPECT_TRUE(Eventually([&] { return harness.Stats().active_save_streams() == 2; }));
  v1::Checkpoint third;
  const grpc::Status status = harness.Save({}, &third);
  EXPECT_TRUE(IsRefusedForNow(status)) << status.error_message();
  EXPECT_THAT(status.error_message(), testing::HasSubstr("2 open streams"));
  for (auto& context : contexts) context->TryCancel();
  for (auto& stream : streams) stream->Finish();
}

TEST(HostingTest, WatchersHaveTheirOwnLimitAndBlockNoSave) {
  ServerConfig config = TestConfig();
  config.max_streams = 2;  // one that has just ended may still count
  config.max_watchers = 3;
  GrpcHarness harness(config);
  harness.SaveModel("models/m", 1);
  v1::WatchModelRequest request;
  request.set_name("models/m");
  v1::WatchModelResponse seen;
  std::vector<std::unique_ptr<Context>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchModelResponse>>> watchers;
  for (int i = 0; i < config.max_watchers; ++i) {
    contexts.push_back(std::make_unique<Context>());
    watchers.push_back(harness.store().WatchModel(contexts.back().get(), request));
    ASSERT_TRUE(watchers.back()->Read(&seen));
  }
  Context context;
  auto one_more = harness.store().WatchModel(&context, request);
  EXPECT_FALSE(one_more->Read(&seen));
  EXPECT_TRUE(IsRefusedForNow(one_more->Finish()));
  harness.SaveModel("models/m", 1);
  Loaded loaded;
  v1::LoadCheckpointRequest load;
  load.set_name("models/m/checkpoints/2");
  const grpc::Status status = harness.Load(load, &loaded);
  EXPECT_TRUE(status.ok()) << status.error_message();
  for (auto& watching : contexts) watching->TryCancel();
  for (auto& watcher : watchers) watcher->Finish();
}

// One request of the reflection service, its fields by number: 4 is
// file_containing_symbol, 7 list_services. Returns the response's bytes.
std::string Reflect(GrpcHarness& harness, const std::string& request) {
  grpc::GenericStub stub(harness.channel());
  Context context;
  grpc::CompletionQueue queue;
  auto stream = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag = nullptr;
  bool ok = false;
  grpc::ByteBuffer response;
  stream->StartCall(&tag);
  queue.Next(&tag, &ok);
  stream->Write(ToBuffer(request), &tag);
  queue.Next(&tag, &ok);
  stream->Read(&response, &tag);
  queue.Next(&tag, &ok);
  const std::string bytes = ok ? Fragments(response).Join() : "";
  context.TryCancel();
  grpc::Status status;
  stream->Finish(&status, &tag);
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return bytes;
}

std::string Field(int number, const std::string& text) {
  return std::string(1, static_cast<char>(number << 3 | 2)) +
         std::string(1, static_cast<char>(text.size())) + text;
}

TEST(HostingTest, ReflectionReportsTheServicesAndTheErrorDetails) {
  GrpcHarness harness;
  const std::string services = Reflect(harness, Field(7, ""));
  for (const char* name : {"modelstore.v1.ModelStore", "modelstore.v1.CheckpointTransfer",
                           "grpc.health.v1.Health"}) {
    EXPECT_THAT(services, testing::HasSubstr(name));
  }
  for (const char* symbol :
       {"google.rpc.BadRequest", "google.rpc.ResourceInfo", "google.rpc.RetryInfo",
        "google.rpc.Status", "modelstore.v1.ModelStore",
        "modelstore.v1.LoadCheckpointRequest"}) {
    const std::string file = Reflect(harness, Field(4, symbol));
    const std::string simple =
        std::string(symbol).substr(std::string(symbol).rfind('.') + 1);
    EXPECT_THAT(file, testing::HasSubstr(".proto")) << symbol;
    EXPECT_THAT(file, testing::HasSubstr(simple)) << symbol;
  }
}

TEST(HostingTest, APortInUseIsReportedAndNotShared) {
  GrpcHarness harness;
  ServerConfig config = TestConfig();
  config.port = harness.server().port();
  const auto second = Server::Start(
      config, {nullptr, std::make_unique<BlockedService>(std::shared_future<void>())});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()),
              testing::HasSubstr(std::to_string(config.port)));
}

TEST(HostingTest, HealthOfAServerThatDoesNotExistFailsInTime) {
  const absl::Time begin = absl::Now();
  EXPECT_FALSE(CheckHealth("127.0.0.1:1", absl::Seconds(1)).ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
}

}  // namespace
}  // namespace modelstore::server
