// A Service over a store in memory, and short ways to call it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/digest.h"
#include "server/method_table.h"
#include "storage/memory/engine.h"

namespace modelstore::server {

std::string DigestOf(absl::string_view bytes);

// Bytes of a length, different for each seed.
std::string MakeBytes(size_t size, uint32_t seed);

// A tensor in one piece, and the chunks that it is cut into.
struct TestTensor {
  v1::Tensor tensor;
  std::string bytes;
  std::vector<std::string> chunks;
};
TestTensor MakeTensor(const std::string& key, v1::DType dtype,
                      const std::vector<int64_t>& shape, std::string bytes,
                      int64_t chunk_bytes = 0);

// Appends a chunk to a message of SaveCheckpoint or UploadChunks.
template <typename Request>
void AddChunk(Request* request, const std::string& bytes, bool with_digest = true) {
  auto* chunk = request->add_chunks();
  if (with_digest) chunk->set_digest(DigestOf(bytes));
  chunk->set_size_bytes(static_cast<int64_t>(bytes.size()));
  request->mutable_data()->append(bytes);
}

// What a load brought: its plan, put together, and its bytes, each run's digest
// checked.
struct Loaded {
  v1::LoadPlan plan;
  std::string bytes;
  int64_t first_position = -1;
  int messages = 0;
  int runs = 0;
  size_t longest_message = 0;

  // The bytes of one tensor; the load must have begun at 0.
  std::string Of(const std::string& key) const;
};

class Harness {
 public:
  Harness() : Harness(storage::StoreOptions()) {}
  explicit Harness(storage::StoreOptions options);

  Service& service() { return *service_; }
  storage::CheckpointStore& store() { return *store_; }
  storage::MemoryDisk& disk() { return *disk_; }
  std::unique_ptr<storage::CheckpointStore> ReleaseStore() {
    service_.reset();
    return std::move(store_);
  }

  template <typename Response>
  absl::StatusOr<Response> Call(const std::string& method,
                                const google::protobuf::Message& request) {
    auto bytes = service_->Call(method, request.SerializeAsString());
    if (!bytes.ok()) return bytes.status();
    Response response;
    if (!response.ParseFromString(*bytes)) return absl::InternalError("not parsed");
    return response;
  }

  // Streams `requests` and half-closes.
  absl::StatusOr<std::string> Send(
      const std::string& method,
      const std::vector<std::shared_ptr<google::protobuf::Message>>& requests);
  absl::StatusOr<v1::Checkpoint> Save(
      const std::vector<v1::SaveCheckpointRequest>& requests);
  absl::StatusOr<v1::UploadChunksResponse> Upload(
      const std::vector<v1::UploadChunksRequest>& requests);
  // All tensors, in one message where they fit.
  absl::StatusOr<v1::Checkpoint> SaveTensors(const std::string& parent,
                                             const std::vector<TestTensor>& tensors);
  absl::StatusOr<Loaded> Load(const v1::LoadCheckpointRequest& request);

  // Every message of a server-streaming RPC of ModelStore, waits included. Stops
  // early once `until` returns true.
  template <typename Response>
  absl::StatusOr<std::vector<Response>> Stream(
      const std::string& method, const google::protobuf::Message& request,
      const std::function<bool(OutboundSession&)>& until = nullptr) {
    auto session = service_->OpenOutbound(method, request.SerializeAsString());
    if (!session.ok()) return session.status();
    std::vector<Response> responses;
    for (;;) {
      if (until && until(**session)) return responses;
      auto message = (*session)->Next();
      if (!message.ok()) return message.status();
      if (!message->has_value()) return responses;
      if ((*message)->again_after) {
        absl::SleepFor(*(*message)->again_after);
      } else if (!responses.emplace_back().ParseFromString((*message)->head)) {
        return absl::InternalError("not parsed");
      }
    }
  }

  // Inverts a bit of one chunk of a tensor, which must be in a pack of its own.
  void Damage(const std::string& model_id, int64_t version, const std::string& key,
              int64_t chunk);
  // Makes it one that the disk cannot read, likewise.
  void BreakSector(const std::string& model_id, int64_t version, const std::string& key,
                   int64_t chunk);

 private:
  // Calls `visit` with the place of a chunk.
  void AtChunk(const std::string& model_id, int64_t version, const std::string& key,
               int64_t chunk, const std::function<void(uint64_t, uint32_t)>& visit);

  std::shared_ptr<storage::MemoryDisk> disk_;
  std::unique_ptr<storage::CheckpointStore> store_;
  std::unique_ptr<Service> service_;
};

// Reads a stream to its end, waits included, and returns its status.
absl::Status ReadToEnd(OutboundSession& session);

// Puts the messages of a load together.
class LoadCollector {
 public:
  absl::Status Add(absl::string_view message);
  Loaded Take() { return std::move(loaded_); }

 private:
  Loaded loaded_;
  std::string section_bytes_;  // slices of the last section
};

inline constexpr char kStore[] = "/modelstore.v1.ModelStore/";
inline constexpr char kTransfer[] = "/modelstore.v1.CheckpointTransfer/";

MATCHER_P2(FailsWith, code, text, "") {
  *result_listener << arg.status();
  return arg.status().code() == code &&
         std::string(arg.status().message()).find(text) != std::string::npos;
}

}  // namespace modelstore::server
