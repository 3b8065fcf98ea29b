// Puts the bytes of a load's messages where they belong, and checks them there.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "client/internal/load.h"
#include "modelstore/connection.h"
#include "proto/contract/digest.h"

namespace modelstore::internal {

// Of one stream; used by one thread.
class ChunkReceiver {
 public:
  explicit ChunkReceiver(LoadPlan::State* plan)
      : plan_(plan), digester_(DigestAlgorithm::kXxh3_128) {}

  // Takes one message whose bytes begin at `*position` of the sequence and do not
  // go beyond `end`, and moves `*position` on by what it verified. DATA_LOSS
  // naming the tensor if bytes do not match their digest; INTERNAL if the message
  // is not what was asked for.
  absl::Status Take(const ReceivedMessage& message, int64_t end, int64_t* position);

 private:
  struct Source;

  absl::Status TakeRun(const v1::LoadedChunk& run, Source* source);
  size_t FindTarget(int64_t position);
  // The tensor's device did not take its bytes. Not for a retry.
  absl::Status NotTaken(size_t index, absl::string_view why) const;

  LoadPlan::State* const plan_;
  Digester digester_;
  size_t target_ = 0;  // Where the last run went.
};

}  // namespace modelstore::internal
