// A real server on a port of the loopback interface, and its generated stubs.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "modelstore/v1/checkpoint_transfer.grpc.pb.h"
#include "modelstore/v1/model_store.grpc.pb.h"
#include "server/server.h"
#include "tests/server/harness.h"

namespace modelstore::server {

// Port 0, few threads, quiet.
ServerConfig TestConfig();

class Context : public grpc::ClientContext {
 public:
  explicit Context(absl::Duration timeout = absl::Seconds(30)) {
    set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }
};

class GrpcHarness {
 public:
  // Over a store in memory.
  explicit GrpcHarness(ServerConfig config = TestConfig());
  GrpcHarness(ServerConfig config, std::unique_ptr<Service> service);

  Server& server() { return *server_; }
  void Stop() { server_.reset(); }
  v1::ModelStore::Stub& store() { return *store_; }
  v1::CheckpointTransfer::Stub& transfer() { return *transfer_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  // A connection of its own, with gRPC's default limits.
  std::shared_ptr<grpc::Channel> NewChannel();

  grpc::Status Save(const std::vector<v1::SaveCheckpointRequest>& requests,
                    v1::Checkpoint* checkpoint);
  // A model of one tensor of `chunks` chunks of 1 MiB each.
  void SaveModel(const std::string& parent, int chunks);
  grpc::Status Load(const v1::LoadCheckpointRequest& request, Loaded* loaded);
  v1::Stats Stats();

 private:
  void Connect();

  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ModelStore::Stub> store_;
  std::unique_ptr<v1::CheckpointTransfer::Stub> transfer_;
};

// Sends `messages` as they are to any method, half-closes, and returns its status.
grpc::Status SendRaw(const std::shared_ptr<grpc::Channel>& channel,
                     const std::string& method, const std::vector<std::string>& messages);

// Calls `condition` until it holds; false after 20 s.
bool Eventually(const std::function<bool()>& condition);

// Anonymous resident memory of this process.
double RssAnonMib();

}  // namespace modelstore::server
