// Copies the bytes of a load's messages to their tensors and verifies them there.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "client/internal/load.h"
#include "modelstore/connection.h"
#include "proto/contract/digest.h"

namespace modelstore::internal {

// One per stream; used by one thread.
class ChunkReceiver {
 public:
  explicit ChunkReceiver(LoadPlan::State* plan)
      : plan_(plan), digester_(DigestAlgorithm::kXxh3_128) {}

  // Consumes one message whose bytes start at `*position` of the plan's sequence and end
  // at or before `end`. Advances `*position` by the verified bytes, so that a retry can
  // resume there. DATA_LOSS naming the tensor if bytes do not match their digest;
  // INTERNAL if the message does not match the request.
  absl::Status Take(const ReceivedMessage& message, int64_t end, int64_t* position);

 private:
  struct Source;

  absl::Status TakeRun(const v1::LoadedChunk& run, Source* source);
  size_t FindTarget(int64_t position);
  // Error for bytes that the tensor's device did not accept. Not retried.
  absl::Status RejectedByDevice(size_t index, absl::string_view why) const;

  LoadPlan::State* const plan_;
  Digester digester_;
  size_t target_ = 0;  // Target of the last run; the next run is usually there too.
};

}  // namespace modelstore::internal
