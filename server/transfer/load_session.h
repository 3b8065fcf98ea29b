// The session of LoadCheckpoint: sends the plan in one or more parts, then the bytes of
// the requested range of its sequence (TensorPlan).
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

// Holds the checkpoint open until it is destroyed, so that a deletion does not affect the
// load. It keeps no chunk in memory between two messages.
class LoadSession final : public OutboundSession {
 public:
  // Opens the checkpoint by name or reopens it by `resume_token`, and resolves the
  // selection. Errors: INVALID_ARGUMENT for a malformed request, NOT_FOUND for the
  // checkpoint or a selected tensor, OUT_OF_RANGE for a range outside the sequence,
  // FAILED_PRECONDITION for an expired token. `request` is serialized.
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

 private:
  // Consecutive bytes of the sequence that come from one stored chunk. Sent as one
  // LoadedChunk.
  struct Run {
    // Byte range to read from the stored tensor. If the tensor is cast, whole elements.
    int64_t begin = 0;
    int64_t end = 0;
    // Bytes to send: `size_bytes` of them after the first `skip`, counted after the cast.
    // `skip` is not 0 only if a load starts inside of an element that is cast.
    int64_t skip = 0;
    int64_t size_bytes = 0;
    bool cast = false;
  };

  LoadSession(TensorPlan plan, Reservation reservation, v1::LoadCheckpointRequest request,
              std::string token);

  absl::StatusOr<std::optional<OutboundMessage>> NextPlanPart();
  // Adds the next section to a part of the plan: all of it, or its next slice. Advances
  // sent_sections_ once the section is complete.
  absl::Status AddSection(const storage::records::SectionRecord& record, bool in_slices,
                          v1::LoadPlan* part);
  // Fills one message with as many runs as fit.
  absl::StatusOr<std::optional<OutboundMessage>> NextChunks();
  // Advances at_ to the tensor that holds position_ and opens cursor_ on its source.
  absl::Status EnterTensor();
  // Returns the longest run at position_ that one message may hold. Moves cursor_ to the
  // chunk of the run; reads nothing.
  Run PlanRun();
  // Reads and if necessary casts the run at cursor_, appends its bytes to `message` and
  // sets their digest in `header`. DATA_LOSS if the stored chunk is damaged.
  absl::Status ReadRun(const Run& run, v1::LoadedChunk* header, OutboundMessage* message);

  const TensorPlan plan_;
  const Reservation reservation_;  // for plan_
  const v1::LoadCheckpointRequest request_;
  const std::string token_;  // resume_token of this load
  // Maximum size of a message's `data`, and of one run in it. The latter is a power of
  // two, so that a stored chunk is divided into equal runs.
  const int64_t max_batch_bytes_;
  const int64_t max_run_bytes_;
  std::atomic<bool> cancelled_ = false;

  // Progress of the plan: number of sections and tensors sent so far. Sections precede
  // tensors.
  size_t sent_sections_ = 0;
  size_t sent_tensors_ = 0;
  // Bytes sent so far of a section that is sent in slices; 0 between sections.
  size_t sent_slice_bytes_ = 0;
  bool first_part_ = true;
  bool plan_done_ = false;
  // No chunk was sent yet. The first message of chunks has at most kInitialSendBytes.
  bool first_chunks_ = true;
  // Maximum `data` of the next message of chunks. Doubles with each up to
  // max_batch_bytes_.
  int64_t batch_bytes_ = kInitialSendBytes;

  // Byte range of the sequence that is still to be sent.
  int64_t position_ = 0;
  int64_t end_ = 0;
  // Index in plan_.tensors() of the tensor that holds position_.
  size_t at_ = 0;
  // Within a message it holds the last chunk read, so that several runs of one chunk
  // read it once. Absent before the first run.
  std::optional<storage::ChunkCursor> cursor_;
};

}  // namespace modelstore::server
