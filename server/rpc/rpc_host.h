// State that all RPCs of a server share: the service, its threads, the byte budgets,
// and the thread that ends idle and stalled streams.
#pragma once

#include <grpcpp/server_context.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_set>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/mutex.h"
#include "server/core/service.h"
#include "server/core/service_context.h"
#include "server/log.h"
#include "server/rpc/storage_pool.h"

namespace modelstore::server {

// A stream that StreamWatch checks periodically.
class WatchedStream {
 public:
  virtual ~WatchedStream() = default;
  // Called about twice a second on StreamWatch's thread, with its mutex held; must not
  // block, nor call StreamWatch. Ends the stream if its client has sent nothing since
  // `idle_since`, or has read nothing since `stalled_since`.
  virtual void OnTick(absl::Time idle_since, absl::Time stalled_since) = 0;
};

// Calls OnTick() of every stream on a thread of its own. Thread-safe.
class StreamWatch {
 public:
  // `contended` returns whether streams wait for the byte budget; stall_timeout applies
  // then, else idle_timeout.
  StreamWatch(absl::Duration idle_timeout, absl::Duration stall_timeout,
              std::function<bool()> contended);
  ~StreamWatch();
  void Add(WatchedStream* stream);
  // Waits for a running OnTick(); none is called afterwards.
  void Remove(WatchedStream* stream);

 private:
  void Watch();

  const absl::Duration idle_timeout_;
  const absl::Duration stall_timeout_;
  const std::function<bool()> contended_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::unordered_set<WatchedStream*> streams_ GUARDED_BY(mutex_);
  std::thread thread_;
};

struct RpcHost {
  Service* service = nullptr;
  StoragePool* pool = nullptr;
  // Bytes of received messages that are not stored yet, and of messages being sent.
  std::shared_ptr<ByteBudget> inbound;
  std::shared_ptr<ByteBudget> outbound;
  StreamWatch* watch = nullptr;
  std::shared_ptr<Gauges> gauges;
  const Log* log = nullptr;
  // Called when an RPC ended with UNAVAILABLE: storage may need to be reopened.
  std::function<void()> on_unavailable;
  int max_streams = 1024;
  std::atomic<int> streams = 0;
  // WatchModel streams are counted separately: they stay open for days and hold no
  // thread, and must not use up the streams of saves and loads.
  int max_watchers = 4096;
  std::atomic<int> watchers = 0;
  std::atomic<bool> draining = false;

  // OK, or why a new RPC is refused: UNAVAILABLE during shutdown or above a limit. The
  // stream that asks must already be counted.
  absl::Status Admit() const;
  absl::Status AdmitStream() const;
  absl::Status AdmitWatcher() const;
};

// CANCELLED: the client cancelled the RPC or has disconnected.
absl::Status ClientDisconnected();

// One RPC's line in the log. The constructor starts the clock and adds the request id
// to the trailing metadata.
class RpcRecord {
 public:
  RpcRecord(const RpcHost* host, const std::string& method,
            grpc::CallbackServerContext* context);
  // Whole messages, payloads included.
  void AddReceived(size_t bytes) { received_ += bytes; }
  void AddSent(size_t bytes) { sent_ += bytes; }
  void SetStatus(const absl::Status& status) { status_ = status; }
  // Writes the line. Called once, when the RPC is over.
  void End();

 private:
  const RpcHost* const host_;
  const std::string& method_;
  const std::string peer_;
  std::string request_id_;
  const absl::Time start_;
  std::atomic<int64_t> received_ = 0;
  std::atomic<int64_t> sent_ = 0;
  absl::Status status_;
};

}  // namespace modelstore::server
