// The session of CompareCheckpoints: finds differences by digest, reads the tensors whose
// digests do not decide and, with `with_norms`, those that differ, to measure by how
// much. Several runs of a tensor, and several tensors, are read at once.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "modelstore/v1/operations.pb.h"
#include "proto/contract/difference.h"
#include "server/core/operation_session.h"
#include "server/operations/compare_plan.h"

namespace modelstore::server {

class CompareSession final : public OperationSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  // The first step plans aside. Each later one gathers jobs of about 16 MiB, reads them
  // on several threads, then takes their results in order.
  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  // A tensor that is being read. Immutable; shared by its jobs, which copy the cursors.
  struct Reading {
    storage::ChunkCursor first;
    storage::ChunkCursor other;
    DType first_dtype;
    DType other_dtype;
    // The digests of chunks that cover the same range can be compared. If they are equal,
    // at most one of the chunks is read.
    bool by_digest = false;
  };
  // A run of elements to read from both tensors, and its result. Or, if `reading` is
  // null, the end of a tensor, which may have no runs.
  struct Job {
    std::shared_ptr<const Reading> reading;
    // Byte range in the tensor of the first checkpoint.
    int64_t begin = 0;
    int64_t end = 0;
    // Result. `sums` only with norms; without them `differs` ends the run early.
    absl::Status status;
    bool differs = false;
    DifferenceSums sums;
  };

  CompareSession(ServiceContext& context, std::shared_ptr<storage::Read> first,
                 std::shared_ptr<storage::Read> other, Reservation reservation,
                 v1::CompareCheckpointsRequest request);

  // Makes plan_ and the parts of the result that need no reading. Runs aside.
  absl::Status Plan();
  // Returns the jobs of the next step: runs, each tensor's followed by its end.
  absl::StatusOr<std::vector<Job>> Gather();
  // Sets reading_ to a tensor.
  absl::Status Enter(const ComparedTensor& tensor);
  // Reads and compares one run. Called by several threads at once, each with its own job.
  absl::Status ReadRun(Job& job) const;
  // Counts a tensor in the result and clears what its runs have added up.
  void EndTensor(const ComparedTensor& tensor);
  void AddDifference(const ComparedTensor& tensor, ComparedTensor::Kind kind);
  // Sends the differences collected so far, if any.
  void SendDifferences();

  const std::shared_ptr<storage::Read> first_;
  const std::shared_ptr<storage::Read> other_;
  const Reservation reservation_;  // for plan_
  const v1::CompareCheckpointsRequest request_;
  bool planned_ = false;
  ComparePlan plan_;

  // State of Gather(): index of the next tensor, the next byte in it, and the tensor if
  // it is being read.
  size_t at_ = 0;
  int64_t position_ = 0;
  std::shared_ptr<const Reading> reading_;

  // Index of the tensor whose results are being taken, and its results so far.
  size_t taken_ = 0;
  bool differs_ = false;
  DifferenceSums sums_;

  int64_t compared_bytes_ = 0;
  // Set aside while Progress() reads it.
  std::atomic<int64_t> total_bytes_ = 0;
  // Differences to send with the next part, their size, and when the last part was sent.
  v1::CompareCheckpointsResponse differences_;
  size_t differences_bytes_ = 0;
  absl::Time differences_sent_ = SteadyNow();
  v1::CompareCheckpointsResponse::Result result_;
};

}  // namespace modelstore::server
