// Sends chunks of a plan over several parallel streams.
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

// Maximum chunk bytes per message; a single chunk may be larger. A message costs a few
// thread switches on both sides, whatever its size, but if a connection breaks often,
// only complete messages count. So each stream starts small and doubles the size.
inline constexpr int64_t kFirstMessageBytes = int64_t{512} << 10;
inline constexpr int64_t kMessageBytes = kMaxChunkBytes;

// Distributes the chunks to send, one message at a time. Thread-safe.
class ChunkQueue {
 public:
  ChunkQueue(SavePlan* plan, std::vector<uint32_t> todo)
      : plan_(plan), todo_(std::move(todo)) {}

  // Returns the chunks of the next message, up to `message_bytes`. They are digested in
  // this call, so that their bytes are in the cache when they are sent. Chunks with the
  // same bytes as an earlier one are skipped and added to `*skipped_bytes`. Empty when
  // none are left, or after Stop(). Errors are those of SavePlan::FetchFromDevice().
  absl::StatusOr<std::vector<uint32_t>> Take(int64_t message_bytes, Deadline deadline,
                                             int64_t* skipped_bytes);
  // Waits until every chunk of the plan is digested. False at the deadline or after
  // Stop().
  bool WaitDigested(Deadline deadline);
  // Makes Take() return no more chunks.
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

// One round of parallel UploadChunks streams. Chunks that a failed round did not deliver
// are sent in the next one.
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

  // Sends `todo` over up to `streams` lanes, then the manifest on lane 0. OK after the
  // server has sealed everything.
  absl::Status Run(std::vector<uint32_t> todo, int streams);

 private:
  absl::Status RunLane(int lane, ChunkQueue* queue);
  absl::Status SendChunks(Stream& stream, ChunkQueue* queue, bool* first);
  absl::Status SendManifest(Stream& stream, ChunkQueue* queue, bool* first);
  // Deadline of each single wait on a stream.
  Deadline StepDeadline() const;

  Connection& connection_;
  SavePlan* const plan_;
  SaveHandle::State* const state_;
  const Target target_;
  const Deadline deadline_;
};

// Returns the payloads of `chunks` without copying. Bytes fetched from a device are owned
// only by the payloads afterwards, and freed when the transport has sent them.
std::vector<Payload> PayloadsOf(SavePlan* plan, const std::vector<uint32_t>& chunks,
                                int64_t* bytes);

}  // namespace modelstore::internal
