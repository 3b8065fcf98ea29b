// The store's time, by which uploads and leases expire and deleted bytes wait. It runs
// with the steady clock, so that a step of the wall clock neither expires anything nor
// stops anything from expiring.
//
// It begins as the wall's time. The offset from the wall clock is stored in the catalog,
// so that a restart does not apply a past step. While the server is down only
// the wall clock measures time: a step then counts as elapsed time, and holders of
// leases have the grace after startup to renew them. It never goes back.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "storage/catalog.h"

namespace modelstore::storage {

// Thread-safe after Restore().
class StoreClock {
 public:
  // `wall` and `steady` are the clocks of StoreOptions.
  StoreClock(std::function<absl::Time()> wall, std::function<absl::Duration()> steady);

  // Goes on from where the catalog says that an earlier run was. Called once, before
  // any other thread uses the clock.
  absl::Status Restore(Catalog& catalog);

  absl::Time Now() const;
  int64_t NowUs() const { return absl::ToUnixMicros(Now()); }
  // Since this run began.
  absl::Duration Uptime() const;
  // What the wall clock shows, as it goes now, at a moment of the store's time.
  int64_t ToWallUs(int64_t store_time_us) const;

  // Writes down where the clock is, if that has changed enough since the last time: the
  // wall clock stepped, or an hour passed. Called every few seconds. A failed write is
  // repeated by the next call.
  void Persist(Catalog& catalog) EXCLUDES(mutex_);

 private:
  absl::Duration Ahead() const { return Now() - wall_(); }

  const std::function<absl::Time()> wall_;
  const std::function<absl::Duration()> steady_;
  const absl::Duration began_;  // on the steady clock
  absl::Time began_at_;         // the store's time at that moment
  Mutex mutex_;
  absl::Duration pages_written_ GUARDED_BY(mutex_);
  absl::Time written_at_ GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace modelstore::storage
