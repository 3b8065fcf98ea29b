// The dependencies of every RPC: the store, the options of the service, and the state
// that all RPCs share.
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

// Current activity, reported by GetStats. The reactors and the scrub update it.
struct Gauges {
  std::atomic<int> active_save_streams = 0;
  std::atomic<int> active_load_streams = 0;
  // Bytes of messages that are being stored or sent.
  std::atomic<int64_t> buffered_bytes = 0;
  // Of the background scrub; see Stats in the API. The time is 0 before its first end.
  std::atomic<int64_t> scrubbed_bytes = 0;
  std::atomic<int64_t> scrub_damaged_tensors = 0;
  std::atomic<int64_t> last_scrub_time_us = 0;
};

struct ServiceOptions {
  // Limits, reported by GetServerInfo. The service itself enforces only the first, as the
  // bound of SessionMemory; 0: no bound.
  int64_t memory_budget_bytes = 0;
  int max_open_uploads = 0;
  int max_open_uploads_per_model = 0;
  absl::Duration upload_min_idle;
  int max_streams = 0;
  int max_watchers = 0;
  int max_streams_per_connection = 0;
  // Interval between heartbeats to a watcher whose model does not change.
  absl::Duration watch_heartbeat = absl::Seconds(30);
  // May be null: GetStats then reports zeros.
  std::shared_ptr<const Gauges> gauges;
  // Calls each(0) to each(count - 1), several at once, and returns when all have
  // returned. If unset, they are called in sequence.
  std::function<void(int count, const std::function<void(int)>& each)> for_each;
  // Returns true once the server is shutting down: long-running calls then end. May be
  // empty. Called from any thread.
  std::function<bool()> draining;
};

// One per service. Shared by all its RPCs, which may use it from any thread; `options`
// does not change after construction.
struct ServiceContext {
  storage::CheckpointStore* store = nullptr;  // not owned
  ServiceOptions options;
  absl::Time start_time;
  std::shared_ptr<SessionMemory> memory = std::make_shared<SessionMemory>(0);
  std::shared_ptr<ModelWatchers> watchers = std::make_shared<ModelWatchers>();
  // True while a CollectGarbage call runs its collection; others wait for it.
  std::shared_ptr<std::atomic<bool>> collecting =
      std::make_shared<std::atomic<bool>>(false);

  // See ServiceOptions::for_each.
  void ForEach(int count, const std::function<void(int)>& each) const {
    if (options.for_each) return options.for_each(count, each);
    for (int i = 0; i < count; ++i) each(i);
  }
};

}  // namespace modelstore::server
