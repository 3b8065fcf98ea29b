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

struct StoreOptions {
  // Size at which a pack is sealed.
  int64_t pack_bytes = int64_t{256} << 20;
  // An upload opens a second pack only once its first holds this much.
  int64_t second_pack_bytes = int64_t{64} << 20;
  // Number of small packs (less than an eighth of pack_bytes) that are merged.
  size_t merge_packs = 16;
  // Kept free on the disk; saves are refused below it.
  int64_t reserve_bytes = int64_t{256} << 20;
  // How long the bytes of a deleted checkpoint stay readable for resumed loads.
  absl::Duration grace = absl::Seconds(60);
  absl::Duration default_upload_ttl = absl::Hours(24);
  // No expiry for this long after startup.
  absl::Duration start_grace = absl::Minutes(10);
  int max_open_uploads = 1024;
  int max_open_uploads_per_model = 64;
  // An upload unused by calls and streams for this long is idle: it is deleted when a
  // new one exceeds either limit, and when its base is deleted.
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
