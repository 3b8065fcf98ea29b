// Reads and verifies all stored data periodically at a limited rate, as VerifyCheckpoint
// does for one version, so that damage is found while another copy may still exist.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "server/core/rate_limiter.h"
#include "server/core/service_context.h"
#include "server/log.h"
#include "storage/api/chunk_cursor.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// Runs on one thread of its own and keeps one chunk in memory. A version is held for a
// few seconds at a time, so a deleted version's space is freed soon; the pass continues
// with the next version. A chunk that versions of a model share is read once per pass. A
// place that the disk cannot read is tried a few times, reported and passed over.
class Scrub {
 public:
  struct Options {
    // Maximum rate; must be positive.
    int64_t bytes_per_second = 0;
    // Time between the starts of two passes. A pass that takes longer is followed by
    // the next immediately.
    absl::Duration period;
    // Delay before the first pass.
    absl::Duration first_after;
  };
  // `store` and `log` must outlive it. Updates `gauges`; logs each damaged or unreadable
  // tensor, and one line at the end of each pass.
  Scrub(storage::CheckpointStore* store, const Log* log, std::shared_ptr<Gauges> gauges,
        Options options);
  // Stops after the chunk that is being read.
  ~Scrub();

 private:
  struct Finding {
    std::string error;    // empty: none
    bool damaged = true;  // otherwise the disk cannot read it
  };
  // Totals of one pass.
  struct Pass {
    int64_t checkpoints = 0;
    int64_t bytes = 0;
    int64_t damaged_tensors = 0;
    int64_t unread_tensors = 0;
    // Chunks of the current model that were read or passed over.
    absl::flat_hash_map<absl::uint128, Finding> seen;
  };
  // Position in a version; it survives the pauses between two holds.
  struct Place {
    int tensor = 0;
    int64_t position = 0;
    // The current tensor has been reported.
    bool reported = false;
    // Failed reads at this place.
    int failures = 0;
    // Of the model.
    std::string uid;
  };

  void Run();
  absl::Status RunPass(Pass& pass);
  absl::Status ScrubModel(const std::string& model_id, Pass& pass);
  // Continues at `place`. UNAVAILABLE: to be repeated.
  absl::Status ScrubCheckpoint(const std::string& model_id, int64_t version, Place& place,
                               Pass& pass);
  // Continues at `place` until the end or the time that a version may be held.
  absl::Status ScrubStep(const std::shared_ptr<storage::Read>& read, Place& place,
                         Pass& pass);
  absl::Status CheckChunk(const storage::Read& read, const storage::ChunkCursor& chunk,
                          Place& place, Pass& pass);
  // Counts a failed read. True if the place is to be passed over: it has failed several
  // times, and the store is open.
  bool GivesUp(const absl::Status& status, Place& place);
  void Report(absl::string_view tensor, absl::string_view checkpoint,
              const Finding& finding, Pass& pass);
  // False if the scrub is being stopped.
  bool Sleep(absl::Duration time);
  bool stopping();

  storage::CheckpointStore* const store_;
  const Log* const log_;
  const std::shared_ptr<Gauges> gauges_;
  const Options options_;
  RateLimiter rate_limiter_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace modelstore::server
