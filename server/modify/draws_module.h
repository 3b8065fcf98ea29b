// Interface between the server and the module that draws random numbers. Torch takes
// seconds and 60 MiB to start, so it is linked into a library of its own, which is loaded
// when the first number is drawn.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// Called before each 512 KiB of numbers; an error stops the draw and is returned.
using KeepGoing = absl::FunctionRef<absl::Status()>;

// A generator inside the module, with the contract of RandomDraws.
class DrawsModule {
 public:
  virtual ~DrawsModule() = default;
  virtual absl::StatusOr<SourcePtr> Uniform(int64_t elements, double low, double high,
                                            KeepGoing keep_going) = 0;
  virtual absl::StatusOr<SourcePtr> Normal(int64_t elements, double mean, double std,
                                           KeepGoing keep_going) = 0;
};

// The function that the module exports, and its name. The caller owns the result, which
// is null if there is not enough memory.
using MakeDrawsModule = DrawsModule* (*)(uint64_t seed);
inline constexpr char kMakeDrawsModule[] = "ModelstoreMakeDrawsModule";

}  // namespace modelstore::server::modify
