// A load: the plan from the server, then the bytes over several streams. Each chunk is
// copied directly to its tensor and verified there.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/internal/cancellation.h"
#include "client/internal/retry.h"
#include "modelstore/client.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

absl::StatusOr<LoadPlan> MakeLoadPlan(std::shared_ptr<Connection> connection,
                                      std::string_view name, const LoadOptions& options);

// One tensor of a plan and its progress.
struct LoadTarget {
  int64_t begin = 0;  // Range of its bytes in the plan's sequence.
  int64_t end = 0;
  bool bound = false;
  WritableBuffer buffer;
  std::atomic<bool> touched{false};
  std::atomic<int64_t> missing{0};  // Bytes not verified yet.
};

// A range of the plan's sequence that one stream fetches. It may contain small unbound
// tensors, whose bytes are dropped.
struct LoadRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// Cuts the bytes of the bound tensors into ranges of at most `max_bytes`, at likely
// chunk boundaries.
std::vector<LoadRange> CutRanges(const LoadTarget* targets, size_t count,
                                 int64_t max_bytes);

}  // namespace modelstore::internal

namespace modelstore {

struct LoadPlan::State {
  // Constant once the plan is made; buffers are bound before Run().
  std::shared_ptr<Connection> connection;
  LoadOptions options;
  pid_t pid = 0;
  CheckpointInfo checkpoint;
  std::vector<TensorInfo> tensors;
  std::vector<SectionContent> sections;
  int64_t total_bytes = 0;
  std::unique_ptr<internal::LoadTarget[]> targets;

  // Atomic.
  std::atomic<bool> started{false};
  std::atomic<int64_t> bound_bytes{0};
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> transferred_bytes{0};
  std::atomic<int64_t> reconnects{0};

  // Held during the RPC that renews the token after a restart of the server. Other
  // streams block until the new token is there.
  Mutex mutex;
  std::string resume_token GUARDED_BY(mutex);
};

}  // namespace modelstore
