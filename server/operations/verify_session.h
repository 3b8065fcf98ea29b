// VerifyCheckpoint: reads every byte, several chunks at once, and tells which
// tensors are damaged.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "modelstore/v1/operations.pb.h"
#include "proto/contract/difference.h"
#include "server/core/operation_session.h"
#include "server/core/rate_limiter.h"
#include "server/core/tensor_plan.h"
#include "storage/api/chunk_cursor.h"

namespace modelstore::server {

class VerifySession final : public OperationSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  // First plans aside, then reads the next chunks. An error that is not damage ends the
  // call.
  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

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

  VerifySession(ServiceContext& context, std::shared_ptr<storage::Read> read,
                Reservation reservation, const v1::VerifyCheckpointRequest& request);

  absl::Status Plan();
  // The next chunks, of about so many bytes, and the ends of their tensors.
  std::vector<Job> Gather(int64_t bytes);
  void ReadOne(Job& job) const;
  // What is wrong with a chunk becomes part of its tensor's finding.
  void TakeChunk(const Job& job);
  void EndTensor(size_t tensor);

  const std::shared_ptr<storage::Read> read_;
  const Reservation reservation_;
  const v1::TensorSelection selection_;
  const bool count_non_finite_;
  RateLimiter rate_limiter_;
  bool planned_ = false;
  TensorPlan plan_;
  std::atomic<int64_t> total_bytes_ = 0;

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
};

}  // namespace modelstore::server
