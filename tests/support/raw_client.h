// The API through its generated stubs, for tests that send what the client library never
// sends, or that check single responses.
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

// A one-dimensional tensor of uint8 with chunks of equal size.
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
  // Sends a manifest (if there are tensors) and chunks in one stream and half-closes it.
  // OK if the server has sealed them.
  grpc::Status Upload(const std::string& upload, int contribution,
                      const std::vector<v1::Tensor>& tensors,
                      const std::vector<std::string>& chunks);
  // Indexes of the missing ones of `chunks`.
  grpc::Status FindMissing(const std::string& upload,
                           const std::vector<std::string>& chunks,
                           std::vector<int>* missing);
  grpc::Status Commit(const std::string& upload, v1::Checkpoint* checkpoint);
  // Returns all bytes of a load in the order of the plan, and the plan in `plan` if it is
  // not null.
  grpc::Status Load(const v1::LoadCheckpointRequest& request, std::string* bytes,
                    v1::LoadPlan* plan = nullptr);

 private:
  std::unique_ptr<v1::ModelStore::Stub> store_;
  std::unique_ptr<v1::CheckpointTransfer::Stub> transfer_;
};

// Sends `messages` unchanged, even if malformed, and half-closes; without `half_close` it
// cancels instead. Returns the status of the call.
grpc::Status SendBytes(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    const std::vector<std::string>& messages, bool half_close = true,
    std::chrono::milliseconds timeout = std::chrono::milliseconds(20'000));

// A message with one chunk and its correct digest.
v1::UploadChunksRequest ChunkMessage(const std::string& chunk);

}  // namespace modelstore::support
