// The store's time, by which uploads and leases expire and deleted bytes wait. It
// advances with the steady clock, so that a step of the wall clock neither expires
// anything nor keeps anything from expiring.
//
// It starts at the wall clock's time. The offset from the wall clock is stored in the
// catalog, so that a restart does not apply a past step. While the server is down only
// the wall clock measures time: a step then counts as elapsed time, and holders of leases
// have the grace after startup to renew them. It never goes back.
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

  // Continues the time of the last run, from the catalog. Called once, before any other
  // thread uses the clock.
  absl::Status Restore(Catalog& catalog);

  absl::Time Now() const;
  int64_t NowUs() const { return absl::ToUnixMicros(Now()); }
  // Time since startup.
  absl::Duration Uptime() const;
  // Converts a moment of the store's time to the wall clock's, by their present
  // difference. For times that are shown.
  int64_t ToWallUs(int64_t store_time_us) const;

  // Stores the clock's state if the wall clock has stepped or an hour has passed since
  // the last write. Called every few seconds. A failed write is repeated by the next
  // call.
  void Persist(Catalog& catalog) EXCLUDES(mutex_);

 private:
  // By how much the store's time is ahead of the wall clock.
  absl::Duration Ahead() const { return Now() - wall_(); }

  const std::function<absl::Time()> wall_;
  const std::function<absl::Duration()> steady_;
  const absl::Duration began_;  // on the steady clock
  absl::Time began_at_;         // the store's time at that moment
  Mutex mutex_;
  // Ahead() and the store's time at the last write.
  absl::Duration written_offset_ GUARDED_BY(mutex_);
  absl::Time written_at_ GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace modelstore::storage
