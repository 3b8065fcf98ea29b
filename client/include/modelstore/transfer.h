// SaveHandle: a save in progress. LoadPlan: a load that is planned but not yet run.
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

// Progress of a save or load.
struct Progress {
  int64_t total_bytes = 0;
  int64_t done_bytes = 0;         // of total_bytes; includes bytes the server already had
  int64_t transferred_bytes = 0;  // sent or received over the network
  int64_t reconnects = 0;         // how often a broken stream was reopened
};

// A save that runs in the background. Copies refer to the same save. Destroying all of
// them, or the Client, does not cancel it. A failure that no handle returned makes the
// next save of the same client fail, which is then not started, or is returned by
// Client::Drain(). A normal exit of the process waits for saves in flight, each until its
// deadline; call Drain() before exit to learn their results.
// Thread safety: all methods may be called from any thread.
class [[nodiscard]] SaveHandle {
 public:
  // Waits until the bytes of all tensors have been copied, so that the caller may change
  // them. DEADLINE_EXCEEDED if that takes longer; the save continues. Other errors are
  // those of the save.
  [[nodiscard]] absl::Status Staged(Deadline deadline) const;
  // Waits until the version is durable on the server and returns it. DEADLINE_EXCEEDED if
  // that takes longer; the save continues. Other errors are those of the save.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> Durable(Deadline deadline) const;
  // Waits until the save ends and returns its result. Cancels the save 2 s after its
  // deadline and then waits up to 30 s for it to end. The message of DEADLINE_EXCEEDED
  // says whether nothing was saved or the version may exist.
  [[nodiscard]] absl::StatusOr<CheckpointInfo> Finish() const;
  Progress progress() const;
  // Cancels the save without waiting for it. Durable() then returns CANCELLED, unless the
  // version is already committed; the message says whether it may be.
  void Cancel() const;

  // Returns a handle to a save that failed before it started: every wait returns
  // `status`.
  static SaveHandle Failed(absl::Status status);

  struct State;
  explicit SaveHandle(std::shared_ptr<State> state) : state_(std::move(state)) {}

 private:
  std::shared_ptr<State> state_;
};

// A load that is planned but not yet run. It lists the tensors, the caller binds a buffer
// to each tensor it needs, and Run() fetches them:
//
//   absl::StatusOr<LoadPlan> plan = client.PlanLoad("models/iris/checkpoints/latest");
//   for (size_t i = 0; i < plan->tensors().size(); ++i) {
//     status = plan->Bind(i, {.data = memory[i], .size_bytes = sizes[i]});
//   }
//   status = plan->Run(modelstore::After(std::chrono::minutes(10)));
//
// Move-only. Used by one thread at a time, except progress().
class LoadPlan {
 public:
  LoadPlan(LoadPlan&&) noexcept;
  LoadPlan& operator=(LoadPlan&&) noexcept;
  ~LoadPlan();

  const CheckpointInfo& checkpoint() const;
  // The selected tensors, in order of delivery. A tensor that is tied to an earlier one
  // of the plan has size_bytes 0.
  const std::vector<TensorInfo>& tensors() const;
  // The values of the selected sections.
  const std::vector<SectionContent>& sections() const;
  // Sum of size_bytes over tensors().
  int64_t total_bytes() const;

  // Sets the destination of tensors()[index]. `buffer` must have room for its size_bytes.
  // Tensors without a buffer are not fetched.
  [[nodiscard]] absl::Status Bind(size_t index, WritableBuffer buffer);

  // Fetches every bound tensor and checks its digests. Broken streams resume.
  [[nodiscard]] absl::Status Run(Deadline deadline);
  // For use after Run() failed. done(): the tensor is complete. touched(): bytes were
  // written; if not done(), its contents are undefined.
  bool done(size_t index) const;
  bool touched(size_t index) const;
  Progress progress() const;

  struct State;
  explicit LoadPlan(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

}  // namespace modelstore
