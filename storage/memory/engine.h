// An engine in memory for tests of the code above Catalog and ChunkStore. It can fail at
// any call, before or after the call took effect.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "storage/engine.h"

namespace modelstore::storage {

// The state that survives closing the store. To reopen it, pass the same disk to a second
// engine. Thread-safe.
class MemoryDisk {
 public:
  MemoryDisk();
  ~MemoryDisk();

  // Which calls fail, counted over all mutating calls of catalog and chunk store.
  struct Fault {
    // Fails the n-th mutating call from now (1 is the next); 0: none.
    int64_t at_call = 0;
    // All later calls fail too.
    bool for_good = false;
    // The call takes effect and still returns an error, as a commit whose
    // acknowledgement is lost.
    bool after_effect = false;
    absl::StatusCode code = absl::StatusCode::kUnavailable;
  };
  void SetFault(const Fault& fault);
  // If true, the catalog cannot be reopened.
  void SetReopenFails(bool fails);
  // Number of mutating calls, and the name of the last: `catalog.write`, `pack.append`,
  // `pack.finish`, `pack.publish` or `packs.drop`.
  int64_t calls() const;
  std::string last_call() const;

  // Simulates a power loss: drops buffered writes that no durable write has followed.
  void LosePower();
  static constexpr int64_t kBallastBytes = int64_t{64} << 10;
  // Limits the total size of packs, catalog and ballast; 0: no limit.
  void SetCapacity(int64_t bytes);
  // Bytes used, without the ballast.
  int64_t used_bytes() const;
  // Inverts one bit of a published chunk. False if there is none.
  bool FlipBit(uint64_t pack, uint32_t sequence, int64_t bit);
  // Reads of this chunk fail with UNAVAILABLE while `bad`, as on a bad sector; all else
  // works.
  void SetBadSector(uint64_t pack, uint32_t sequence, bool bad);

  struct State;
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

// Opens an engine on `disk`. One engine at a time per disk.
Engine OpenMemoryEngine(std::shared_ptr<MemoryDisk> disk);

}  // namespace modelstore::storage
