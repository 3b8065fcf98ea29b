// Sizes, times and limits of a store.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "storage/api/listener.h"

namespace modelstore::storage {

// Options of a store. The defaults suit a server; sizes are in bytes.
struct StoreOptions {
  // Size at which a pack is sealed.
  int64_t pack_bytes = int64_t{256} << 20;
  // An upload opens a second pack only once it has received this much, so that packs stay
  // few.
  int64_t second_pack_bytes = int64_t{64} << 20;
  // A collection merges small packs (less than an eighth of pack_bytes) once there are
  // this many.
  size_t merge_packs = 16;
  // Free disk space that saves must leave: a save that would use it is refused.
  int64_t reserve_bytes = int64_t{256} << 20;
  // How long the bytes of a deleted checkpoint stay readable, for resumed loads, after
  // its deletion and after its last reader.
  absl::Duration grace = absl::Seconds(60);
  // Time to live of an upload whose creator gives none.
  absl::Duration default_upload_ttl = absl::Hours(24);
  // No expiry for this long after startup.
  absl::Duration start_grace = absl::Minutes(10);
  // Limits of open uploads, in all and of one model.
  int max_open_uploads = 1024;
  int max_open_uploads_per_model = 64;
  // An upload that no call and no stream has used for this long is idle: it is deleted
  // when a new one would exceed either limit, and when its base is deleted.
  absl::Duration upload_min_idle = absl::Minutes(10);
  // The wall clock, for times that are shown. Both clocks are injected by tests.
  std::function<absl::Time()> now = absl::Now;
  // Time since an arbitrary moment; unaffected by steps of the wall clock. Used for
  // all expiry.
  std::function<absl::Duration()> steady_now = [] {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  };
  Listener* listener = nullptr;  // Not owned; may be null.
};

}  // namespace modelstore::storage
