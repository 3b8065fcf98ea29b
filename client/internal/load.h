// A load: the plan from the server, then its bytes over several streams, each
// chunk copied straight to where it belongs and checked there.
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

// One tensor of a plan, and how far it has come.
struct LoadTarget {
  int64_t begin = 0;  // Of its bytes in the plan's sequence.
  int64_t end = 0;
  bool bound = false;
  WritableBuffer buffer;
  std::atomic<bool> touched{false};
  std::atomic<int64_t> missing{0};  // Bytes not verified yet.
};

// A run of the plan's sequence that one stream brings. Small tensors that are not
// bound may lie within; their bytes are dropped.
struct LoadRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The bound tensors' bytes, cut into ranges of at most `most_bytes`, where chunks
// are likely to be cut too.
std::vector<LoadRange> CutRanges(const LoadTarget* targets, size_t count,
                                 int64_t most_bytes);

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

  // Synchronise themselves.
  std::atomic<bool> started{false};
  std::atomic<int64_t> bound_bytes{0};
  std::atomic<int64_t> done_bytes{0};
  std::atomic<int64_t> transferred_bytes{0};
  std::atomic<int64_t> reconnects{0};

  // Held while the token is renewed, because the server was restarted and knows
  // the old one no more: the other streams wait for the new one.
  Mutex mutex;
  std::string resume_token GUARDED_BY(mutex);
};

}  // namespace modelstore
