// A Connection to a Service in the same process, without gRPC: messages are delivered on
// the calling thread. Can lose, stall and modify messages.
//
//   auto connection = std::make_shared<InProcessConnection>(options);
//   connection->SetService(service.get());
//   connection->SetFaults({.cut_at = 5});     // the fifth message from now is lost
//   Client client(connection);
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>

#include "modelstore/connection.h"
#include "proto/contract/mutex.h"
#include "server/method_table.h"

namespace modelstore::internal {

// Thread-safe. Lock order: the connection's mutex, then a stream's mutex, then its stall
// mutex. A session runs under the mutex of its stream.
class InProcessConnection : public Connection {
 public:
  // The server cannot be reached before SetService().
  explicit InProcessConnection(const ConnectOptions& options);
  ~InProcessConnection() override;

  // Replaces the server. Breaks open streams and destroys their sessions; waits up to
  // 60 s for running unary calls, which finish on the old service. `service` is not
  // owned; null makes the server unreachable.
  void SetService(server::Service* service);

  struct Faults {
    // The n-th stream message from now, in either direction, is lost and its stream
    // broken. 0: none.
    int64_t cut_at = 0;
    // Also every n-th message after that.
    int64_t cut_every = 0;
    // Delivers the message before the stream is broken.
    bool deliver_cut = false;
    // The n-th message is never delivered.
    int64_t stall_at = 0;
    // The n-th unary call from now reaches the server, but its answer is lost.
    int64_t lose_answer_at = 0;
    // Maximum size of the fragments of received messages. 0: as sent.
    size_t fragment_bytes = 0;
    // Modifies messages that the client receives from a stream.
    std::function<void(std::string* message)> tamper;
  };
  void SetFaults(Faults faults);
  // Blocks all stream messages until Resume().
  void Pause();
  void Resume();
  // Stream messages in both directions, and unary calls, since the last SetFaults().
  int64_t messages() const;
  int64_t calls() const;

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override;
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override;
  const ConnectOptions& options() const override { return options_; }

 private:
  class InProcessStream;
  // What the faults say about one message.
  enum class Verdict { kPass, kCutBefore, kCutAfter, kStall };

  // Counts a stream message, after waiting while paused, and applies the faults to it.
  Verdict CountMessage(Deadline deadline);
  // Called by the destructor of a stream.
  void Forget(InProcessStream* stream);
  Faults faults() const;

  const ConnectOptions options_;
  mutable Mutex mutex_;
  server::Service* service_ GUARDED_BY(mutex_) = nullptr;
  int active_calls_ GUARDED_BY(mutex_) = 0;
  bool paused_ GUARDED_BY(mutex_) = false;
  CondVar changed_;
  // Open streams; each removes itself.
  std::set<InProcessStream*> streams_ GUARDED_BY(mutex_);
  Faults faults_ GUARDED_BY(mutex_);
  int64_t messages_ GUARDED_BY(mutex_) = 0;
  int64_t calls_ GUARDED_BY(mutex_) = 0;
};

}  // namespace modelstore::internal
