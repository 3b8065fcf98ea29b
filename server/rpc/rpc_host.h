// What all RPCs of a server share: the service they call, the threads it runs
// on, the bytes they may hold, and the watch over streams that stand still.
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

// A stream that the watch looks at.
class WatchedStream {
 public:
  virtual ~WatchedStream() = default;
  // Called about once a second, from the watch's thread; must not block. Ends the
  // stream if its client has done nothing since `idle_since`, or, if the stream
  // holds bytes that others wait for, since `stalled_since`.
  virtual void OnTick(absl::Time idle_since, absl::Time stalled_since) = 0;
};

// Looks after every stream, on a thread of its own. Thread-safe.
class StreamWatch {
 public:
  // `contended` tells whether other streams wait for bytes.
  StreamWatch(absl::Duration idle_timeout, absl::Duration stall_timeout,
              std::function<bool()> contended);
  ~StreamWatch();
  void Add(WatchedStream* stream);
  // Afterwards no OnTick() of it runs.
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
  // Messages that arrived and are being stored; messages that are being sent.
  std::shared_ptr<ByteBudget> inbound;
  std::shared_ptr<ByteBudget> outbound;
  StreamWatch* watch = nullptr;
  std::shared_ptr<Gauges> gauges;
  const Log* log = nullptr;
  // Called when an RPC ended with UNAVAILABLE: storage may need to be reopened.
  std::function<void()> on_unavailable;
  int max_streams = 1024;
  std::atomic<int> streams = 0;
  // WatchModel, which may stay for days and needs no thread: counted by itself, so
  // that watchers never keep out saves and loads.
  int max_watchers = 4096;
  std::atomic<int> watchers = 0;
  std::atomic<bool> draining = false;

  // Why a new RPC, or one that is a stream and counted already, is refused.
  absl::Status Admit() const;
  absl::Status AdmitStream() const;
  absl::Status AdmitWatcher() const;
};

// What an RPC ends with whose client cancelled it or is gone.
absl::Status ClientLeft();

// One RPC, for the log: begun when made, ended by End().
class RpcRecord {
 public:
  RpcRecord(const RpcHost* host, const std::string& method,
            grpc::CallbackServerContext* context);
  // Counts payloads and all.
  void AddReceived(size_t bytes) { received_ += bytes; }
  void AddSent(size_t bytes) { sent_ += bytes; }
  void SetStatus(const absl::Status& status) { status_ = status; }
  // Once, when the RPC is over.
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
