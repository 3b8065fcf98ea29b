// What every RPC works with: the store, the options of the service, and what all RPCs
// share.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "server/core/model_watchers.h"
#include "server/core/reservation.h"
#include "storage/checkpoint_store.h"

namespace modelstore::server {

// What the streams and the scrub are doing, kept by whoever drives them and told by
// GetStats.
struct Gauges {
  std::atomic<int> active_save_streams = 0;
  std::atomic<int> active_load_streams = 0;
  // Bytes of messages that are being stored or sent.
  std::atomic<int64_t> buffered_bytes = 0;
  // Of the background scrub; see Stats.
  std::atomic<int64_t> scrubbed_bytes = 0;
  std::atomic<int64_t> scrub_damaged_tensors = 0;
  std::atomic<int64_t> last_scrub_time_us = 0;
};

struct ServiceOptions {
  // Told by GetServerInfo.
  int64_t memory_budget_bytes = 0;
  int max_open_uploads = 0;
  int max_open_uploads_per_model = 0;
  absl::Duration upload_min_idle;
  int max_streams = 0;
  int max_watchers = 0;
  int max_streams_per_connection = 0;
  // A watcher to whom nothing happens hears so often that it is connected.
  absl::Duration watch_heartbeat = absl::Seconds(30);
  // May be null.
  std::shared_ptr<const Gauges> gauges;
  // Calls each(0) to each(count - 1), several at once, and returns when all are
  // done. Unset: one after the other.
  std::function<void(int count, const std::function<void(int)>& each)> for_each;
  // Whether the server is shutting down, so that what computes for long ends. May be
  // empty.
  std::function<bool()> draining;
};

struct ServiceContext {
  storage::CheckpointStore* store = nullptr;
  ServiceOptions options;
  absl::Time start_time;
  std::shared_ptr<SessionMemory> memory = std::make_shared<SessionMemory>(0);
  std::shared_ptr<ModelWatchers> watchers = std::make_shared<ModelWatchers>();
  // A CollectGarbage call runs its collection; the others wait for it.
  std::shared_ptr<std::atomic<bool>> collecting =
      std::make_shared<std::atomic<bool>>(false);

  // See ServiceOptions::for_each.
  void ForEach(int count, const std::function<void(int)>& each) const {
    if (options.for_each) return options.for_each(count, each);
    for (int i = 0; i < count; ++i) each(i);
  }
};

}  // namespace modelstore::server
