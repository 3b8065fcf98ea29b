#include "tests/server/grpc_harness.h"

#include <grpcpp/generic/generic_stub.h>

#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/rpc/byte_buffers.h"

namespace modelstore::server {

ServerConfig TestConfig() {
  ServerConfig config;
  config.port = 0;
  config.storage_threads = 4;
  config.log_level = LogLevel::kError;
  config.collect_interval = absl::ZeroDuration();
  return config;
}

GrpcHarness::GrpcHarness(ServerConfig config) {
  auto store = storage::CheckpointStore::Open(
      storage::StoreOptions(),
      storage::OpenMemoryEngine(std::make_shared<storage::MemoryDisk>()));
  if (!store.ok()) {
    ADD_FAILURE() << store.status();
    return;
  }
  auto server = Server::Start(config, {*std::move(store), nullptr});
  if (server.ok()) server_ = *std::move(server);
  EXPECT_TRUE(server.ok()) << server.status();
  Connect();
}

GrpcHarness::GrpcHarness(ServerConfig config, std::unique_ptr<Service> service) {
  auto server = Server::Start(config, {nullptr, std::move(service)});
  if (server.ok()) server_ = *std::move(server);
  EXPECT_TRUE(server.ok()) << server.status();
  Connect();
}

void GrpcHarness::Connect() {
  channel_ = NewChannel();
  store_ = v1::ModelStore::NewStub(channel_);
  transfer_ = v1::CheckpointTransfer::NewStub(channel_);
}

std::shared_ptr<grpc::Channel> GrpcHarness::NewChannel() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(),
                                   arguments);
}

grpc::Status GrpcHarness::Save(const std::vector<v1::SaveCheckpointRequest>& requests,
                               v1::Checkpoint* checkpoint) {
  Context context;
  auto stream = transfer_->SaveCheckpoint(&context, checkpoint);
  for (const auto& request : requests) {
    if (!stream->Write(request)) break;
  }
  stream->WritesDone();
  return stream->Finish();
}

void GrpcHarness::SaveModel(const std::string& parent, int chunks) {
  const size_t size = size_t{1} << 20;
  const TestTensor tensor =
      MakeTensor("w", v1::DTYPE_UINT8, {static_cast<int64_t>(chunks * size)},
                 MakeBytes(chunks * size, 17), size);
  std::vector<v1::SaveCheckpointRequest> requests(1);
  requests[0].set_parent(parent);
  requests[0].set_create_model(true);
  *requests[0].mutable_manifest()->add_tensors() = tensor.tensor;
  for (const auto& chunk : tensor.chunks) AddChunk(&requests.emplace_back(), chunk);
  requests.emplace_back().set_finish(true);
  v1::Checkpoint checkpoint;
  const grpc::Status status = Save(requests, &checkpoint);
  ASSERT_TRUE(status.ok()) << status.error_message();
}

grpc::Status GrpcHarness::Load(const v1::LoadCheckpointRequest& request, Loaded* loaded) {
  Context context;
  auto stream = transfer_->LoadCheckpoint(&context, request);
  LoadCollector collector;
  v1::LoadCheckpointResponse response;
  while (stream->Read(&response)) {
    const absl::Status status = collector.Add(response.SerializeAsString());
    EXPECT_TRUE(status.ok()) << status;
  }
  *loaded = collector.Take();
  return stream->Finish();
}

v1::Stats GrpcHarness::Stats() {
  Context context;
  v1::Stats stats;
  const grpc::Status status = store_->GetStats(&context, {}, &stats);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return stats;
}

grpc::Status SendRaw(const std::shared_ptr<grpc::Channel>& channel,
                     const std::string& method,
                     const std::vector<std::string>& messages) {
  grpc::GenericStub stub(channel);
  Context context;
  grpc::CompletionQueue queue;
  auto stream = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = false;
  stream->StartCall(&tag);
  queue.Next(&tag, &ok);
  for (const std::string& message : messages) {
    stream->Write(ToBuffer(message), &tag);
    queue.Next(&tag, &ok);
    if (!ok) break;
  }
  if (ok) {
    stream->WritesDone(&tag);
    queue.Next(&tag, &ok);
  }
  for (ok = true; ok;) {
    grpc::ByteBuffer response;
    stream->Read(&response, &tag);
    queue.Next(&tag, &ok);
  }
  grpc::Status status;
  stream->Finish(&status, &tag);
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  return status;
}

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

double RssAnonMib() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "RssAnon:") continue;
    double kib = 0;
    status >> kib;
    return kib / 1024;
  }
  return 0;
}

}  // namespace modelstore::server
