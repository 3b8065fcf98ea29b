// Sends chunks of a plan over one or several streams at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "client/internal/save_plan.h"
#include "client/internal/save_state.h"
#include "modelstore/connection.h"
#include "proto/contract/digest.h"
#include "proto/contract/limits.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Chunks that travel in one message: at most so many bytes, unless one alone has
// more. Each message costs the same handful of thread switches on either side,
// whatever its size; but a connection that breaks again and again brings only whole
// ones. So a stream begins with small ones and doubles them.
inline constexpr int64_t kFirstMessageBytes = int64_t{512} << 10;
inline constexpr int64_t kMessageBytes = kMaxChunkBytes;

// Hands out the chunks that are to be sent, message by message. Thread-safe.
class ChunkQueue {
 public:
  ChunkQueue(SavePlan* plan, std::vector<uint32_t> todo)
      : plan_(plan), todo_(std::move(todo)) {}

  // The chunks of the next message, of up to `message_bytes`, digested just now, so
  // that their bytes are in the cache when they are sent. Bytes handed out before,
  // under another index, are skipped. Empty when there are no more, or after Stop().
  // Fails as SavePlan::BringOver() does.
  absl::StatusOr<std::vector<uint32_t>> Take(int64_t message_bytes, Deadline deadline,
                                             int64_t* skipped_bytes);
  // Waits until every chunk that was handed out is digested.
  bool WaitDigested(Deadline deadline);
  void Stop();

 private:
  std::vector<uint32_t> Claim(int64_t message_bytes);

  SavePlan* const plan_;
  const std::vector<uint32_t> todo_;
  Mutex mutex_;
  CondVar changed_;
  size_t next_ GUARDED_BY(mutex_) = 0;
  bool stopped_ GUARDED_BY(mutex_) = false;
  absl::flat_hash_set<class Digest> sent_ GUARDED_BY(mutex_);
};

// One UploadChunks stream after another, in parallel: a round. What was not
// delivered in one round is for the next.
class UploadRound {
 public:
  struct Target {
    std::string upload;
    int32_t contribution = 0;
  };

  UploadRound(Connection* connection, SavePlan* plan, SaveHandle::State* state,
              Target target, Deadline deadline)
      : connection_(*connection),
        plan_(plan),
        state_(state),
        target_(std::move(target)),
        deadline_(deadline) {}

  // Sends `todo` over up to `streams` lanes, then the manifest on the first. OK when
  // all of it is sealed by the server.
  absl::Status Run(std::vector<uint32_t> todo, int streams);

 private:
  absl::Status RunLane(int lane, ChunkQueue* queue);
  absl::Status SendChunks(Stream& stream, ChunkQueue* queue, bool* first);
  absl::Status SendManifest(Stream& stream, ChunkQueue* queue, bool* first);
  // Every single wait of a stream.
  Deadline StepDeadline() const;

  Connection& connection_;
  SavePlan* const plan_;
  SaveHandle::State* const state_;
  const Target target_;
  const Deadline deadline_;
};

// The payloads of `chunks`, in place. What was brought over from a device for them is
// held by them alone from here on.
std::vector<Payload> PayloadsOf(SavePlan* plan, const std::vector<uint32_t>& chunks,
                                int64_t* bytes);

}  // namespace modelstore::internal
