// The API through its generated stubs, for tests that must send what the client
// library never would, or see each answer by itself.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "modelstore/v1/checkpoint_transfer.grpc.pb.h"
#include "modelstore/v1/model_store.grpc.pb.h"

namespace modelstore::support {

// A context with a deadline.
class Context : public grpc::ClientContext {
 public:
  explicit Context(
      std::chrono::milliseconds timeout = std::chrono::milliseconds(30'000)) {
    set_deadline(std::chrono::system_clock::now() + timeout);
  }
};

// A one-dimensional tensor of uint8, cut into chunks of one size.
struct RawTensor {
  v1::Tensor tensor;
  std::vector<std::string> chunks;

  RawTensor(const std::string& key, uint64_t seed, size_t chunk_bytes, int chunk_count);
  std::string bytes() const;
};

std::string DigestBytes(std::string_view bytes);

// Both services of one server. Thread-safe.
class RawClient {
 public:
  explicit RawClient(const std::shared_ptr<grpc::Channel>& channel)
      : store_(v1::ModelStore::NewStub(channel)),
        transfer_(v1::CheckpointTransfer::NewStub(channel)) {}

  v1::ModelStore::Stub& store() { return *store_; }
  v1::CheckpointTransfer::Stub& transfer() { return *transfer_; }

  grpc::Status CreateUpload(const std::string& parent, const std::string& request_id,
                            v1::Upload* upload, int contributions = 1);
  // Sends a manifest (where there are tensors) and chunks as one stream and ends
  // it: they are sealed if OK comes back.
  grpc::Status Upload(const std::string& upload, int contribution,
                      const std::vector<v1::Tensor>& tensors,
                      const std::vector<std::string>& chunks);
  // Positions in `chunks` of those that are missing.
  grpc::Status FindMissing(const std::string& upload,
                           const std::vector<std::string>& chunks,
                           std::vector<int>* missing);
  grpc::Status Commit(const std::string& upload, v1::Checkpoint* checkpoint);
  // The bytes of the whole load, in the order of the plan, which goes to `plan`
  // where that is not null.
  grpc::Status Load(const v1::LoadCheckpointRequest& request, std::string* bytes,
                    v1::LoadPlan* plan = nullptr);

 private:
  std::unique_ptr<v1::ModelStore::Stub> store_;
  std::unique_ptr<v1::CheckpointTransfer::Stub> transfer_;
};

// Sends `messages` as they are, whatever they hold, and half-closes unless
// `half_close` is false; then cancels. Returns what the call ended with.
grpc::Status SendBytes(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    const std::vector<std::string>& messages, bool half_close = true,
    std::chrono::milliseconds timeout = std::chrono::milliseconds(20'000));

// A message that brings one chunk under its true digest.
v1::UploadChunksRequest ChunkMessage(const std::string& chunk);

}  // namespace modelstore::support
