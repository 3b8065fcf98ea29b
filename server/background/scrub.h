// Reads the whole store over and over, slowly, so that what a disk has forgotten is
// known while there may be another copy: what VerifyCheckpoint does, by itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "server/core/rate_limiter.h"
#include "server/core/service_context.h"
#include "server/core/tensor_stream.h"
#include "server/log.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// One thread of its own, with one chunk in memory. A checkpoint is held for seconds
// at most, so that one that is deleted meanwhile is not kept: the pass goes on with
// the next. Chunks that versions of a model share are read once a pass.
class Scrub {
 public:
  struct Options {
    // Read at most; positive.
    int64_t bytes_per_second = 0;
    // From the begin of one pass to that of the next; a pass that takes longer is
    // followed by the next at once.
    absl::Duration period;
    // From the start to the first pass.
    absl::Duration first_after;
  };
  // `store` and `log` outlive it. Counts in `gauges`; writes a line for each damaged
  // tensor and one at the end of a pass.
  Scrub(storage::CheckpointStore* store, const Log* log, std::shared_ptr<Gauges> gauges,
        Options options);
  // Waits for the chunk that is being read.
  ~Scrub();

 private:
  using ChunkKey = std::pair<uint64_t, uint32_t>;
  // What a pass has come to.
  struct Pass {
    int64_t checkpoints = 0;
    int64_t bytes = 0;
    int64_t damaged_tensors = 0;
    // Chunks of the model that were read, and what is wrong with them.
    absl::flat_hash_map<ChunkKey, std::string> seen;
  };
  // Where the reading of a checkpoint stands.
  struct Cursor {
    int tensor = 0;
    int64_t position = 0;
    // Told already.
    bool damaged = false;
  };

  void Run();
  absl::Status RunPass(Pass& pass);
  absl::Status ScrubModel(const std::string& model_id, Pass& pass);
  absl::Status ScrubCheckpoint(const std::string& model_id, int64_t version, Pass& pass);
  // Reads on from `cursor` for as long as a checkpoint may be held.
  absl::Status ScrubSome(storage::Read& read, Cursor& cursor, Pass& pass);
  absl::Status CheckChunk(storage::Read& read, const ChunkSpan& chunk, Cursor& cursor,
                          Pass& pass);
  void TellDamage(absl::string_view tensor, absl::string_view checkpoint,
                  absl::string_view what, Pass& pass);
  // False if it is to end.
  bool Sleep(absl::Duration time);
  bool stopping();

  storage::CheckpointStore* const store_;
  const Log* const log_;
  const std::shared_ptr<Gauges> gauges_;
  const Options options_;
  Pace pace_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace modelstore::server
