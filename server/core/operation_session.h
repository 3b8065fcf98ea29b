// The long-running calls of ModelStore: VerifyCheckpoint, CompareCheckpoints,
// PruneCheckpoints, CollectGarbage, ModifyCheckpoint. An OperationSession does the work
// of one call in steps. An OperationStream drives it and produces the messages of the
// stream, in the same order for all calls:
//
//   while (work is left) {
//     take a step; send the parts of the response that it produced;
//     send progress, twice a second;
//   }
//   send the last progress, then the result;
//
// A call ends with CANCELLED when its client disconnects or its deadline passes, and with
// UNAVAILABLE when the server starts to shut down, so that the client retries it.
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

// The work of one call. Used by one thread at a time, except where noted. Members that
// Progress() reads and work aside writes must be atomic or locked.
class OperationSession {
 public:
  // What the stream does after a step.
  struct Then {
    // Work that cannot be divided into steps. Runs on a thread of its own while the
    // stream sends progress. Must call CheckCancelled() at intervals. Its error ends the
    // call.
    std::function<absl::Status()> aside;
    // No step is left. Work that commits is started together with `done`: it is then not
    // abandoned when the call is cancelled, because only its end shows whether it has
    // committed.
    bool done = false;
    // Time until the next step. No thread is held meanwhile.
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

  // Works for at most 50 ms, so that other RPCs can use the thread in between. Not called
  // after Done(), nor while work runs aside.
  virtual absl::StatusOr<Then> Step() = 0;
  // Returns a serialized response with the progress of the call. May run concurrently
  // with work aside.
  virtual std::string Progress() const = 0;
  // Returns the serialized response that ends the call. Called once, when all work has
  // succeeded.
  virtual std::string Result() = 0;

 protected:
  // Queues a part of the response, which is sent before the next step. Called from a step
  // or from work aside; parts of the latter are sent after it has ended.
  void Send(const google::protobuf::MessageLite& response) {
    parts_.push_back(response.SerializeAsString());
  }
  // Returns an error once the call must end: CANCELLED, or UNAVAILABLE at shutdown.
  // Thread-safe.
  absl::Status CheckCancelled() const;

  ServiceContext& context_;

 private:
  friend class OperationStream;

  std::atomic<bool> cancelled_ = false;
  // Serialized parts to send. Work aside may add to it; the stream reads it only while no
  // work runs aside, after joining its thread.
  std::deque<std::string> parts_;
};

// Drives an OperationSession. See the top of this file.
class OperationStream final : public OutboundSession {
 public:
  explicit OperationStream(std::unique_ptr<OperationSession> session)
      : session_(std::move(session)) {}
  // Cancels the call and waits until work aside has ended.
  ~OperationStream() override;

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { session_->cancelled_ = true; }

 private:
  // Starts a thread that runs `work`. UNAVAILABLE if it cannot be started.
  absl::Status StartAside(std::function<absl::Status()> work);
  // Returns false if the work aside is still running. Otherwise joins its thread and
  // sets *status to its result.
  bool EndAside(absl::Status* status);

  const std::unique_ptr<OperationSession> session_;
  absl::Time reported_at_ = SteadyNow();  // when progress was last sent
  bool done_ = false;                     // the session has no more steps
  bool final_sent_ = false;               // the last progress was sent
  bool ended_ = false;                    // the result was sent

  // Joinable while work runs aside or its end has not been noticed yet.
  std::thread aside_;
  absl::Time aside_since_;
  Mutex mutex_;
  // Set when the work has ended.
  std::optional<absl::Status> aside_status_ GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
