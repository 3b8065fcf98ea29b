#include "storage/store_clock.h"

#include <algorithm>
#include <utility>

#include "modelstore/storage/v1/records.pb.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// A change of the difference between the clocks by at least this is a step of the wall
// clock. Drift between two calls, and NTP's corrections, are smaller.
constexpr absl::Duration kStep = absl::Seconds(1);
constexpr absl::Duration kWriteInterval = absl::Hours(1);

}  // namespace

StoreClock::StoreClock(std::function<absl::Time()> wall,
                       std::function<absl::Duration()> steady)
    : wall_(std::move(wall)),
      steady_(std::move(steady)),
      began_(steady_()),
      began_at_(wall_()) {}

absl::Status StoreClock::Restore(Catalog& catalog) {
  ASSIGN_OR_RETURN(const std::optional<v1::ClockRecord> kept,
                   GetRecord<v1::ClockRecord>(catalog, keys::Clock()));
  if (!kept.has_value()) return absl::OkStatus();
  // Applies the stored difference, but never goes back behind the time that was stored.
  began_at_ = std::max(began_at_ + absl::Microseconds(kept->ahead_of_wall_us()),
                       absl::FromUnixMicros(kept->store_time_us()));
  return absl::OkStatus();
}

absl::Time StoreClock::Now() const { return began_at_ + Uptime(); }

absl::Duration StoreClock::Uptime() const { return steady_() - began_; }

int64_t StoreClock::ToWallUs(int64_t store_time_us) const {
  const int64_t ahead = absl::ToInt64Microseconds(Ahead());
  // The two clocks are not read at the same moment, so a small difference is ignored.
  return absl::AbsDuration(absl::Microseconds(ahead)) < kStep ? store_time_us
                                                              : store_time_us - ahead;
}

void StoreClock::Persist(Catalog& catalog) {
  MutexLock lock(mutex_);
  const absl::Time now = Now();
  const absl::Duration ahead = Ahead();
  if (absl::AbsDuration(ahead - written_offset_) < kStep &&
      now < written_at_ + kWriteInterval) {
    return;
  }
  v1::ClockRecord record;
  record.set_store_time_us(absl::ToUnixMicros(now));
  record.set_ahead_of_wall_us(absl::ToInt64Microseconds(ahead));
  CatalogBatch batch;
  batch.Put(Space::kRecords, keys::Clock(), Encode(record));
  if (!catalog.Write(batch, Durability::kBuffered).ok()) return;
  written_offset_ = ahead;
  written_at_ = now;
}

}  // namespace modelstore::storage
