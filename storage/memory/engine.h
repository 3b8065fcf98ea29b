// An engine in memory, for the tests of everything above the seams: it fails on
// demand, at any call, before or after its effect.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "storage/checkpoint_store.h"

namespace modelstore::storage {

// What survives closing the store: give the same disk to a second engine to
// reopen it. Thread-safe.
class MemoryDisk {
 public:
  MemoryDisk();
  ~MemoryDisk();

  // Which calls fail. Counted over every mutating call of catalog and chunks.
  struct Fault {
    // Fails the n-th mutating call from now (1 is the next); 0: none.
    int64_t at_call = 0;
    // Every later call too.
    bool for_good = false;
    // The call takes effect and reports failure all the same (a commit whose
    // acknowledgement is lost: undecided).
    bool after_effect = false;
    absl::StatusCode code = absl::StatusCode::kUnavailable;
  };
  void SetFault(const Fault& fault);
  // The catalog cannot be reopened.
  void SetReopenFails(bool fails);
  // Mutating calls so far; the name of the last (`catalog.write`, `pack.append`,
  // `pack.finish`, `pack.publish`, `packs.drop`).
  int64_t calls() const;
  std::string last_call() const;

  // Forgets every buffered write that no durable one has followed: power loss.
  void LosePower();
  // Bytes that packs, catalog and the ballast may hold together; 0: no bound.
  static constexpr int64_t kBallastBytes = int64_t{64} << 10;
  void SetCapacity(int64_t bytes);
  // Without the ballast.
  int64_t used_bytes() const;
  // Inverts one bit of a published chunk. False if there is none.
  bool FlipBit(uint64_t pack, uint32_t sequence, int64_t bit);

  struct State;
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

Engine OpenMemoryEngine(std::shared_ptr<MemoryDisk> disk);

}  // namespace modelstore::storage
