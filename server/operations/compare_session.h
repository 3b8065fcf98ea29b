// CompareCheckpoints: tells what differs by digest and, on request, reads it to
// tell by how much, several runs at once.
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

  // First plans aside, then compares the next runs.
  absl::StatusOr<Then> Step() override;
  std::string Progress() const override;
  std::string Result() override;

 private:
  // A tensor that is being read.
  struct Reading {
    storage::ChunkCursor first;
    storage::ChunkCursor other;
    DType first_dtype;
    DType other_dtype;
    // Chunks that are cut alike need not be read twice where their digests agree.
    bool by_digest = false;
  };
  // A run of elements to read on both sides and, once it is, what came of it; or
  // the end of a tensor.
  struct Job {
    std::shared_ptr<const Reading> reading;
    // In bytes of the first checkpoint's tensor.
    int64_t begin = 0;
    int64_t end = 0;
    absl::Status status;
    bool differs = false;
    DifferenceSums sums;
  };

  CompareSession(ServiceContext& context, std::shared_ptr<storage::Read> first,
                 std::shared_ptr<storage::Read> other, Reservation reservation,
                 v1::CompareCheckpointsRequest request);

  absl::Status Plan();
  // The next runs, and the ends of their tensors, which have no reading.
  absl::StatusOr<std::vector<Job>> Gather();
  absl::Status Enter(const ComparedTensor& tensor);
  absl::Status ReadRun(Job& job) const;
  void EndTensor(const ComparedTensor& tensor);
  void AddDifference(const ComparedTensor& tensor, ComparedTensor::Kind kind);
  void SendDifferences();

  const std::shared_ptr<storage::Read> first_;
  const std::shared_ptr<storage::Read> other_;
  const Reservation reservation_;
  const v1::CompareCheckpointsRequest request_;
  bool planned_ = false;
  ComparePlan plan_;

  // Where Gather() goes on, and the tensor there once it is being read.
  size_t at_ = 0;
  int64_t position_ = 0;
  std::shared_ptr<const Reading> reading_;

  // The tensor whose runs are being taken.
  size_t taken_ = 0;
  bool differs_ = false;
  DifferenceSums sums_;

  int64_t compared_bytes_ = 0;
  std::atomic<int64_t> total_bytes_ = 0;
  v1::CompareCheckpointsResponse differences_;
  size_t differences_bytes_ = 0;
  absl::Time differences_sent_ = SteadyNow();
  v1::CompareCheckpointsResponse::Result result_;
};

}  // namespace modelstore::server
