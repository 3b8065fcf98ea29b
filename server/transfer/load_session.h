// LoadCheckpoint: sends the plan, then the bytes, chunk by chunk.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/core/tensor_plan.h"
#include "storage/api/chunk_cursor.h"

namespace modelstore::server {

class LoadSession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

 private:
  // A run of bytes of the sequence that comes from one stored chunk.
  struct Run {
    // What is taken of the stored tensor: whole elements where they are cast.
    int64_t begin = 0;
    int64_t end = 0;
    // What is sent: `size_bytes` after the first `skip` of the bytes taken.
    int64_t skip = 0;
    int64_t size_bytes = 0;
    bool cast = false;
  };

  LoadSession(TensorPlan plan, Reservation reservation, v1::LoadCheckpointRequest request,
              std::string token);

  absl::StatusOr<std::optional<OutboundMessage>> NextPlanPart();
  // Adds the next section to a part of the plan: whole, or the next slice of it.
  absl::Status AddSection(const storage::records::SectionRecord& record, bool in_slices,
                          v1::LoadPlan* part);
  absl::StatusOr<std::optional<OutboundMessage>> NextChunks();
  // Makes position_ lie in the tensor at_, and cursor_ one of its source.
  absl::Status EnterTensor();
  // Moves cursor_ to the run's chunk.
  Run PlanRun();
  absl::Status ReadRun(const Run& run, v1::LoadedChunk* header, OutboundMessage* message);

  const TensorPlan plan_;
  const Reservation reservation_;
  const v1::LoadCheckpointRequest request_;
  const std::string token_;
  // Of a message's `data`, and of one run: a power of two, so that a stored chunk is
  // sent in equal parts.
  const int64_t max_batch_bytes_;
  const int64_t max_run_bytes_;
  std::atomic<bool> cancelled_ = false;

  // Of the plan: the next section and tensor to tell.
  size_t sent_sections_ = 0;
  size_t sent_tensors_ = 0;
  // Of the next section, if it is told in slices.
  size_t sent_slice_bytes_ = 0;
  bool first_part_ = true;
  bool plan_done_ = false;
  // No chunk was sent yet: the first message of them is small (kInitialSendBytes).
  bool first_chunks_ = true;
  // Of the next message of chunks.
  int64_t batch_bytes_ = kInitialSendBytes;

  // Of the sequence.
  int64_t position_ = 0;
  int64_t end_ = 0;
  size_t at_ = 0;
  // Holds the chunk read last while more of it is wanted.
  std::optional<storage::ChunkCursor> cursor_;
};

}  // namespace modelstore::server
