// CompareCheckpoints: tells what differs by digest and, on request, reads it to
// tell by how much, several runs at once.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "modelstore/v1/operations.pb.h"
#include "proto/contract/difference.h"
#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/operations/compare_plan.h"

namespace modelstore::server {

class CompareSession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

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

  CompareSession(ServiceContext& context, ComparePlan plan, Reservation reservation,
                 const v1::CompareCheckpointsRequest& request);

  absl::Status Step();
  // The next runs, and the ends of their tensors, which have no reading.
  absl::StatusOr<std::vector<Job>> Gather();
  absl::Status Enter(const ComparedTensor& tensor);
  absl::Status ReadRun(Job& job) const;
  void EndTensor(const ComparedTensor& tensor);
  void AddDifference(const ComparedTensor& tensor, ComparedTensor::Kind kind);
  OutboundMessage TakeDifferences();
  OutboundMessage ProgressMessage() const;
  OutboundMessage ResultMessage() const;

  ServiceContext& context_;
  const ComparePlan plan_;
  const Reservation reservation_;
  const v1::CompareCheckpointsRequest request_;
  std::atomic<bool> cancelled_ = false;

  // Where Gather() goes on, and the tensor there once it is being read.
  size_t at_ = 0;
  int64_t position_ = 0;
  std::shared_ptr<const Reading> reading_;

  // The tensor whose runs are being taken.
  size_t taken_ = 0;
  bool differs_ = false;
  DifferenceSums sums_;

  int64_t compared_bytes_ = 0;
  int64_t total_bytes_ = 0;
  v1::CompareCheckpointsResponse differences_;
  size_t differences_bytes_ = 0;
  // Messages of differences that are full.
  std::deque<OutboundMessage> ready_;
  v1::CompareCheckpointsResponse::Result result_;
  absl::Time told_at_ = absl::InfinitePast();
  bool whole_told_ = false;
  bool result_told_ = false;
};

}  // namespace modelstore::server
