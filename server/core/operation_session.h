// The calls of ModelStore that take long: VerifyCheckpoint, CompareCheckpoints,
// PruneCheckpoints, CollectGarbage, ModifyCheckpoint. An OperationSession does the work
// of one call in steps; OperationStream makes its messages, alike for all:
//
//   while (work is left) {
//     take a step; send the parts of the answer that it found;
//     send progress, twice a second;
//   }
//   send the last progress, then the result;
//
// A call ends with CANCELLED when its client is gone (which includes its deadline) and
// with UNAVAILABLE when the server begins to shut down: its client repeats it.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/message_lite.h"
#include "proto/contract/mutex.h"
#include "proto/contract/steady_time.h"
#include "server/core/service_context.h"
#include "server/core/session.h"

namespace modelstore::server {

// The work of one call. Everything is called by one thread at a time, except what says
// otherwise.
class OperationSession {
 public:
  // What follows a step.
  struct Then {
    // Work that cannot be cut into steps: runs on a thread of its own while progress is
    // sent. What takes long in it calls CheckCancelled(). Its error ends the call.
    std::function<absl::Status()> aside;
    // No step is left. Work that commits runs aside from here: the call waits for its
    // end, which tells whether it has committed.
    bool done = false;
    // Time until the next step, in which no thread is held.
    absl::Duration wait = absl::ZeroDuration();
  };
  static Then Again(absl::Duration wait = absl::ZeroDuration()) {
    return {nullptr, false, wait};
  }
  static Then Aside(std::function<absl::Status()> work) {
    return {std::move(work), false, absl::ZeroDuration()};
  }
  static Then Done(std::function<absl::Status()> work = nullptr) {
    return {std::move(work), true, absl::ZeroDuration()};
  }

  explicit OperationSession(ServiceContext& context) : context_(context) {}
  virtual ~OperationSession() = default;

  // Works for 50 ms at most, so that other RPCs have their turn. Not called again after
  // Done(), nor while work runs aside.
  virtual absl::StatusOr<Then> Step() = 0;
  // The serialized response that tells how far the call is. Also called while work runs
  // aside.
  virtual std::string Progress() const = 0;
  // The serialized response that ends the call; called once, when all is done.
  virtual std::string Result() = 0;

 protected:
  // A part of the answer, sent before the next step; from a step or from work aside.
  void Send(const google::protobuf::MessageLite& response) {
    parts_.push_back(response.SerializeAsString());
  }
  // An error once the call must end. Thread-safe.
  absl::Status CheckCancelled() const;

  ServiceContext& context_;

 private:
  friend class OperationStream;

  std::atomic<bool> cancelled_ = false;
  std::deque<std::string> parts_;
};

class OperationStream final : public OutboundSession {
 public:
  explicit OperationStream(std::unique_ptr<OperationSession> session)
      : session_(std::move(session)) {}
  // Cancels, and waits for work that runs aside.
  ~OperationStream() override;

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { session_->cancelled_ = true; }

 private:
  absl::Status StartAside(std::function<absl::Status()> work);
  // Joins the work that runs aside, if it is over; its status is then in *status.
  bool EndAside(absl::Status* status);

  const std::unique_ptr<OperationSession> session_;
  absl::Time reported_at_ = SteadyNow();
  bool done_ = false;
  bool final_sent_ = false;
  bool ended_ = false;

  std::thread aside_;
  absl::Time aside_since_;
  Mutex mutex_;
  std::optional<absl::Status> aside_status_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
