// Sources of random numbers, equal to those that PyTorch draws. This is the server's only
// access to torch, which is loaded when the first number is drawn (see draws_module.h).
// Draws return UNIMPLEMENTED if the server was built without torch or cannot load it.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "server/modify/draws_module.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// Elements of a block of numbers, and the memory that a source keeps for each block: a
// copy of the generator's state before it.
inline constexpr int64_t kDrawBlockElements = int64_t{128} << 10;
inline constexpr int64_t kDrawStateBytes = int64_t{6} << 10;

// Whether this server was built with torch.
bool WithTorch();

// A random generator in the state that torch.manual_seed(seed) gives PyTorch's generator
// for the CPU. Each draw continues after the one before. Independent of all other
// generators, so concurrent modifications do not affect each other. Used by one thread at
// a time; the sources that it returns are thread-safe and may outlive it.
class RandomDraws {
 public:
  explicit RandomDraws(uint64_t seed);
  ~RandomDraws();
  RandomDraws(const RandomDraws&) = delete;
  RandomDraws& operator=(const RandomDraws&) = delete;

  // Draw `elements` numbers of type float32, bit for bit those of
  // `torch.empty(elements).uniform_(low, high)` and `.normal_(mean, std)`. The numbers
  // are drawn once to advance the generator and are not kept. The source keeps the
  // generator's state for every 512 KiB (kDrawStateBytes each) and draws again what is
  // visited. `keep_going` is called before each block; its error stops the draw.
  absl::StatusOr<SourcePtr> Uniform(int64_t elements, double low, double high,
                                    KeepGoing keep_going);
  absl::StatusOr<SourcePtr> Normal(int64_t elements, double mean, double std,
                                   KeepGoing keep_going);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace modelstore::server::modify
