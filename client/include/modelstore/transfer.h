// SaveHandle and LoadPlan: a save that goes on, and a load that is planned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/deadline.h"
#include "modelstore/resources.h"
#include "modelstore/tensor.h"

namespace modelstore {

// How far a save or load has come. Taken at any time, from any thread.
struct Progress {
  int64_t total_bytes = 0;
  int64_t done_bytes = 0;         // of total_bytes: deduplicated ones included
  int64_t transferred_bytes = 0;  // that crossed the wire
  int64_t reconnects = 0;
};

// A save that goes on in the background. Copies share it; dropping all of them
// does not cancel it: a failure nobody saw is returned by the next save of the
// same client and by Client::Drain(). Nor does it end with the last Client: at a
// normal exit of the process, saves in flight are finished first (each has its
// deadline); call Drain() before, to know how they ended.
class [[nodiscard]] SaveHandle {
 public:
  // Returns when the caller may change the tensors again.
  [[nodiscard]] absl::Status Staged(Deadline deadline) const;
  // Returns when the server has made the version durable.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> Durable(Deadline deadline) const;
  // Waits until the save ends. Cancels it 2 s after its deadline and waits up to 30 s
  // more for it to end: DEADLINE_EXCEEDED tells whether nothing was saved or the commit
  // may be decided.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> Finish() const;
  Progress progress() const;
  // Ends the save as soon as possible; Durable() then returns CANCELLED unless
  // it was committed before, and tells whether it may have been.
  void Cancel() const;

  // A save that was refused before it began: every wait returns `status`.
  static SaveHandle Failed(absl::Status status);

  struct State;
  explicit SaveHandle(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

// A load that is planned and not yet run: what would come, and where to put it.
// Move-only; used by one thread at a time, except progress().
class LoadPlan {
 public:
  LoadPlan(LoadPlan&&) noexcept;
  LoadPlan& operator=(LoadPlan&&) noexcept;
  ~LoadPlan();

  const CheckpointInfo& checkpoint() const;
  // In order of delivery. A tensor tied to an earlier one of the plan has
  // size_bytes 0.
  const std::vector<TensorInfo>& tensors() const;
  const std::vector<SectionContent>& sections() const;
  int64_t total_bytes() const;

  // Tensor `index` goes to `buffer`, which must hold its size_bytes. Tensors not
  // bound are not fetched.
  [[nodiscard]] absl::Status Bind(size_t index, WritableBuffer buffer);

  // Fetches every bound tensor, resuming when cut. On failure done(i) tells
  // which tensors hold their new bytes; of the others, bytes are undefined where
  // touched(i).
  [[nodiscard]] absl::Status Run(Deadline deadline);
  bool done(size_t index) const;
  bool touched(size_t index) const;
  Progress progress() const;

  struct State;
  explicit LoadPlan(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

}  // namespace modelstore
