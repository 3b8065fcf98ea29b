// Random numbers as PyTorch draws them, as sources of bytes. The only place of the
// server behind which there is torch, loaded with the first number (draws_module.h).
// UNIMPLEMENTED where the server was built without it, or it cannot be loaded.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "server/modify/draws_module.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// Elements that are drawn at once, and what a source keeps for each such block.
inline constexpr int64_t kDrawBlockElements = int64_t{128} << 10;
inline constexpr int64_t kDrawStateBytes = int64_t{6} << 10;

// Whether this server was built with torch.
bool WithTorch();

// A generator of its own, as torch.manual_seed(seed) leaves PyTorch's for the CPU:
// what other modifications draw meanwhile does not matter. Each draw goes on where
// the one before it ended. Used by one thread at a time; what it gave lives on.
class RandomDraws {
 public:
  explicit RandomDraws(uint64_t seed);
  ~RandomDraws();
  RandomDraws(const RandomDraws&) = delete;
  RandomDraws& operator=(const RandomDraws&) = delete;

  // float32, bit for bit those of `torch.empty(elements).uniform_(low, high)` and
  // `.normal_(mean, std)`. No numbers are kept: a source remembers the generator's
  // state every 512 KiB (kDrawStateBytes each) and draws anew what is visited.
  absl::StatusOr<SourcePtr> Uniform(int64_t elements, double low, double high,
                                    KeepGoing keep_going);
  absl::StatusOr<SourcePtr> Normal(int64_t elements, double mean, double std,
                                   KeepGoing keep_going);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace modelstore::server::modify
