// Between the server and the module that draws its numbers: torch takes seconds and
// 60 MiB to start, so that it lies in a library of its own, which is loaded with the
// first number.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/modify/tensor_source.h"

namespace modelstore::server::modify {

// Asked before each 512 KiB of numbers: an error ends the drawing with it.
using KeepGoing = absl::FunctionRef<absl::Status()>;

// See RandomDraws.
class DrawsModule {
 public:
  virtual ~DrawsModule() = default;
  virtual absl::StatusOr<SourcePtr> Uniform(int64_t elements, double low, double high,
                                            KeepGoing keep_going) = 0;
  virtual absl::StatusOr<SourcePtr> Normal(int64_t elements, double mean, double std,
                                           KeepGoing keep_going) = 0;
};

// Exported by the module under this name. The caller owns what it returns: null where
// there is no memory.
using MakeDrawsModule = DrawsModule* (*)(uint64_t seed);
inline constexpr char kMakeDrawsModule[] = "ModelstoreMakeDrawsModule";

}  // namespace modelstore::server::modify
