// The session of VerifyCheckpoint: reads every selected byte, several chunks at once, and
// reports the tensors that are damaged and, on request, those with NaN or infinity.
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

  // The first step plans aside. Each later one gathers jobs, reads them on several
  // threads, then takes their results in order. Damage becomes a finding; any other error
  // ends the call.
  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  // A chunk to read, and its result. Or, if `is_end`, the end of a tensor.
  struct Job {
    size_t tensor = 0;  // index in plan_
    bool is_end = false;
    // A cursor at the chunk. Absent if the pieces of the tensor are inconsistent:
    // `status` is then set, and `bytes` is the whole tensor.
    std::optional<storage::ChunkCursor> chunk;
    int64_t bytes = 0;
    absl::Status status;
    NonFinite found;
  };

  VerifySession(ServiceContext& context, std::shared_ptr<storage::Read> read,
                Reservation reservation, const v1::VerifyCheckpointRequest& request);

  // Makes plan_. Runs aside.
  absl::Status Plan();
  // Returns the jobs of the next step: chunks of about `bytes` in all, each tensor's
  // followed by its end.
  std::vector<Job> Gather(int64_t bytes);
  // Reads one chunk. Called by several threads at once, each with its own job.
  void ReadOne(Job& job) const;
  // Adds the result of a chunk to current_.
  void TakeChunk(const Job& job);
  // Counts a tensor in the result and sends its finding, if there is one.
  void EndTensor(size_t tensor);

  const std::shared_ptr<storage::Read> read_;
  const Reservation reservation_;  // for plan_ and findings_
  const v1::TensorSelection selection_;
  const bool count_non_finite_;
  RateLimiter rate_limiter_;
  bool planned_ = false;
  TensorPlan plan_;
  // Set aside while Progress() reads it.
  std::atomic<int64_t> total_bytes_ = 0;

  // State of Gather(): index of the next tensor in plan_, whether its cursor was opened,
  // and a cursor at its next chunk. The cursor is absent for a tensor without bytes of
  // its own or with inconsistent pieces.
  size_t at_ = 0;
  bool entered_ = false;
  std::optional<storage::ChunkCursor> next_;

  // The finding on the tensor whose chunks are being taken.
  v1::VerifyCheckpointResponse::Finding current_;
  // Findings by index of the tensor that holds the bytes (PlannedTensor::source), so that
  // tensors tied to it get the same finding.
  absl::flat_hash_map<int, v1::VerifyCheckpointResponse::Finding> findings_;
  v1::VerifyCheckpointResponse::Result result_;
};

}  // namespace modelstore::server
