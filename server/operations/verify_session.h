// VerifyCheckpoint: reads every byte, several chunks at once, and tells which
// tensors are damaged.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "modelstore/v1/operations.pb.h"
#include "proto/contract/difference.h"
#include "server/core/rate_limiter.h"
#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/core/tensor_plan.h"
#include "storage/api/chunk_cursor.h"

namespace modelstore::server {

class VerifySession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

 private:
  // A chunk to read and, once it is, what came of it; or the end of a tensor.
  struct Job {
    size_t tensor = 0;
    bool is_end = false;
    // At the chunk; none where nothing of the tensor can be read.
    std::optional<storage::ChunkCursor> chunk;
    int64_t bytes = 0;
    absl::Status status;
    NonFinite found;
  };

  VerifySession(ServiceContext& context, TensorPlan plan, Reservation reservation,
                const v1::VerifyCheckpointRequest& request);

  // Reads the next chunks. An error that is not damage ends the call.
  absl::Status Step();
  // The next chunks, of about so many bytes, and the ends of their tensors.
  std::vector<Job> Gather(int64_t bytes);
  void ReadOne(Job& job) const;
  // What is wrong with a chunk becomes part of its tensor's finding.
  void TakeChunk(const Job& job);
  void EndTensor(size_t tensor);
  OutboundMessage ProgressMessage() const;
  OutboundMessage ResultMessage() const;

  ServiceContext& context_;
  const TensorPlan plan_;
  const Reservation reservation_;
  const bool count_non_finite_;
  Pace pace_;
  std::atomic<bool> cancelled_ = false;

  // Where Gather() goes on: a tensor of the plan, and a chunk of it if it has chunks
  // that can be read.
  size_t at_ = 0;
  bool entered_ = false;
  std::optional<storage::ChunkCursor> next_;

  // The tensor whose chunks are being taken, and those that something is to be
  // said about, by where their bytes are: tensors tied to them share that.
  v1::VerifyCheckpointResponse::Finding current_;
  absl::flat_hash_map<int, v1::VerifyCheckpointResponse::Finding> findings_;
  v1::VerifyCheckpointResponse::Result result_;

  std::deque<OutboundMessage> ready_;
  absl::Time told_at_ = absl::InfinitePast();
  bool whole_told_ = false;
  bool result_told_ = false;
};

}  // namespace modelstore::server
