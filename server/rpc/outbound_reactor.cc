#include <atomic>
#include <optional>
#include <utility>

#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/status_codec.h"
#include "proto/contract/steady_time.h"
#include "server/rpc/byte_buffers.h"
#include "server/rpc/reactors.h"

namespace modelstore::server {
namespace {

constexpr char kLoadMethod[] = "/modelstore.v1.CheckpointTransfer/LoadCheckpoint";
constexpr char kWatchMethod[] = "/modelstore.v1.ModelStore/WatchModel";

// Server-streaming RPC. Prepares one message on the pool while gRPC sends the previous
// one, as soon as the client is known to read (kInitialSendBytes). A session that waits
// for an event holds no thread and no part of the byte budget:
//
//   while (message = session.Next()) {
//     write(message);
//     wait until session is ready;
//   }
//   finish(status);
//
// Budget: kMaxChunkBytes is acquired before a message is prepared and replaced by the
// message's real size. The sent buffers release it when gRPC has freed the last of them.
class OutboundReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                              public WatchedStream {
 public:
  OutboundReactor(RpcHost* host, const std::string& method,
                  grpc::CallbackServerContext* context, const grpc::ByteBuffer* request)
      : host_(host),
        method_(method),
        context_(context),
        request_(request),
        is_load_(method == kLoadMethod),
        streams_(method == kWatchMethod ? host->watchers : host->streams),
        record_(host, method, context) {
    record_.AddReceived(request->Length());
    streams_++;
    if (is_load_) host_->gauges->active_load_streams++;
    host_->watch->Add(this);
    const absl::Status admitted =
        method == kWatchMethod ? host->AdmitWatcher() : host->AdmitStream();
    Advance([&]() REQUIRES(mutex_) {
      ended_ = !admitted.ok();
      status_ = admitted;
    });
  }

  // `ok` is false if the client is gone. A successful write only means that gRPC's flow
  // control has accepted the bytes.
  void OnWriteDone(bool ok) override {
    Advance([&]() REQUIRES(mutex_) {
      writing_ = false;
      written_bytes_ += static_cast<int64_t>(current_.Length());
      current_.Clear();
      if (!ok) Abandon(ClientDisconnected());
    });
  }

  void OnCancel() override {
    Advance([this]() REQUIRES(mutex_) { Abandon(ClientDisconnected()); });
  }

  void OnTick(absl::Time idle_since, absl::Time stalled_since) override {
    EndWait();
    {
      // The client does not read, so gRPC keeps the sent bytes. Only cancelling the call
      // frees them: a status would be queued behind them.
      MutexLock lock(mutex_);
      if (!writing_ || stalled_ || write_since_ > stalled_since) return;
      stalled_ = true;
      Abandon(MakeError(ERROR_REASON_STREAM_IDLE, "the client reads nothing"));
    }
    // Without the lock: gRPC may call OnCancel() from here.
    context_->TryCancel();
  }

  void OnDone() override {
    host_->watch->Remove(this);
    if (is_load_) host_->gauges->active_load_streams--;
    streams_--;
    record_.End();
    delete this;
  }

 private:
  // Ends the session's wait when the time it asked for has come, or when the server
  // shuts down. Does nothing if `ready` is already being called.
  void EndWait() {
    {
      MutexLock lock(mutex_);
      if (!waiting_) return;
      if (!host_->draining && SteadyNow() < wait_until_) return;
      if (!session_->CancelWait()) return;
    }
    Advance([this]() REQUIRES(mutex_) {
      waiting_ = false;
      due_ = true;
      if (!host_->draining || ended_) return;
      ended_ = true;
      status_ = host_->Admit();
    });
  }

  // Asks the session whether it must wait before Next(). If so, the session calls
  // `ready` once, on any thread and with no lock held, so that it may take mutex_.
  bool Waits() REQUIRES(mutex_) {
    if (session_ == nullptr || due_) return false;
    const auto until = session_->Wait(
        [this] { Advance([this]() REQUIRES(mutex_) { waiting_ = false; }); });
    if (!until.has_value()) return false;
    wait_until_ = *until;
    return waiting_ = true;
  }

  // Sends no further message and cancels the session. Keeps the first status.
  void Abandon(const absl::Status& why) REQUIRES(mutex_) {
    abandoned_ = true;
    ready_.reset();
    // gRPC frees the sent bytes only when the RPC ends. Waiting for budget here could
    // mean waiting for this RPC's own bytes, so the request is withdrawn.
    if (preparing_ && host_->outbound->Withdraw(this)) preparing_ = false;
    if (waiting_ && session_->CancelWait()) waiting_ = false;
    if (session_ != nullptr) session_->Cancel();
    if (ended_) return;
    ended_ = true;
    status_ = why;
  }

  // Applies `change` under the lock, then starts the steps that the new state allows.
  //
  // Lifetime: a step's flag (writing_, preparing_, waiting_, finishing_) keeps `this`
  // alive until a later Advance() clears it. After the lock is released, `this` may be
  // used only in a step whose flag this call has set; otherwise another thread may have
  // finished the RPC and deleted it.
  template <typename Change>
  void Advance(Change change) {
    bool write = false, finish = false;
    {
      MutexLock lock(mutex_);
      change();
      if (!writing_ && ready_ && !abandoned_) {
        current_ = *std::move(ready_);
        ready_.reset();
        write = writing_ = true;
        write_since_ = SteadyNow();
      }
      const bool reads = !writing_ || written_bytes_ >= kInitialSendBytes;
      if (!ended_ && !preparing_ && !waiting_ && !ready_ && reads && !Waits()) {
        preparing_ = true;
        // Under the lock, so that Abandon() finds the request to withdraw. The callback
        // takes only the pool's lock.
        host_->outbound->Acquire(this, kMaxChunkBytes, [this] {
          host_->pool->Continue([this] { Prepare(); });
        });
      }
      if (ended_ && !writing_ && !preparing_ && !waiting_ && !ready_ && !finishing_) {
        finish = finishing_ = true;
      }
    }
    if (write) StartWrite(&current_);
    if (finish) host_->pool->Continue([this] { End(); });
  }

  // On the pool, with kMaxChunkBytes of the budget: makes the next message. preparing_
  // ensures that one runs at a time, so Next() has no concurrent caller.
  void Prepare() {
    int64_t held = kMaxChunkBytes;
    auto message = NextMessage();
    // Nothing to send yet: a session that works in steps, or waits for its rate. The
    // thread and the budget are free until then.
    if (message.ok() && message->has_value() && (*message)->again_after) {
      host_->outbound->Release(held);
      host_->pool->ContinueAt(SteadyNow() + *(*message)->again_after, [this] {
        Advance([this]() REQUIRES(mutex_) { preparing_ = due_ = false; });
      });
      return;
    }
    std::optional<grpc::ByteBuffer> buffer;
    const bool over = !message.ok() || !message->has_value();
    if (!over) {
      auto size = static_cast<int64_t>((*message)->head.size());
      for (const auto& bytes : (*message)->payloads) {
        size += static_cast<int64_t>(bytes.view().size());
      }
      record_.AddSent(size);
      // Replaces what was acquired by the real size. Larger messages (a plan) go above
      // the limit: Release() of a negative number charges the difference.
      host_->outbound->Release(held - size);
      held = 0;
      buffer = ToBuffer(**std::move(message), size, host_->outbound);
    }
    if (held > 0) host_->outbound->Release(held);
    Advance([&]() REQUIRES(mutex_) {
      preparing_ = due_ = false;
      if (over && !ended_) {
        ended_ = true;
        status_ = message.status();
      }
      if (buffer && !abandoned_) ready_ = std::move(buffer);
    });
  }

  // The session is opened here, on the pool, as opening may read storage.
  absl::StatusOr<std::optional<OutboundMessage>> NextMessage() {
    {
      MutexLock lock(mutex_);
      if (abandoned_) return ClientDisconnected();
    }
    if (session_ == nullptr) {
      auto session = host_->service->OpenOutbound(method_, Fragments(*request_).Join());
      if (!session.ok()) return session.status();
      MutexLock lock(mutex_);
      session_ = *std::move(session);
    }
    return session_->Next();
  }

  // On the pool: the session's destructor may release a held version. Must be last:
  // Finish() leads to OnDone(), which deletes this.
  void End() {
    std::unique_ptr<OutboundSession> session;
    absl::Status status;
    {
      MutexLock lock(mutex_);
      session = std::move(session_);
      status = status_;
    }
    session.reset();
    record_.SetStatus(status);
    Finish(ToGrpcStatus(status));
  }

  RpcHost* const host_;
  const std::string& method_;
  grpc::CallbackServerContext* const context_;
  const grpc::ByteBuffer* const request_;
  const bool is_load_;
  // The number of open streams of this kind.
  std::atomic<int>& streams_;
  RpcRecord record_;

  Mutex mutex_;
  // Set by the pool under the lock. Other threads read it under the lock; the pool's
  // step, of which there is one at a time, reads it without.
  std::unique_ptr<OutboundSession> session_;
  // Owned by gRPC while writing_.
  grpc::ByteBuffer current_;
  // Prepared, not yet being sent.
  std::optional<grpc::ByteBuffer> ready_ GUARDED_BY(mutex_);
  bool writing_ GUARDED_BY(mutex_) = false;
  int64_t written_bytes_ GUARDED_BY(mutex_) = 0;
  // Waits for budget, runs Prepare(), or waits for `again_after`.
  bool preparing_ GUARDED_BY(mutex_) = false;
  // The session waits for an event, at most until wait_until_.
  bool waiting_ GUARDED_BY(mutex_) = false;
  absl::Time wait_until_ GUARDED_BY(mutex_);
  // The time has come: call Next() without asking Waits() again.
  bool due_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;      // status_ is final
  bool abandoned_ GUARDED_BY(mutex_) = false;  // ready_ must not be sent
  bool finishing_ GUARDED_BY(mutex_) = false;  // End() is queued or has run
  bool stalled_ GUARDED_BY(mutex_) = false;    // was cancelled for not reading
  absl::Time write_since_ GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Status status_ GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* StartOutbound(
    RpcHost* host, const std::string& method, grpc::CallbackServerContext* context,
    const grpc::ByteBuffer* request) {
  return new OutboundReactor(host, method, context, request);
}

}  // namespace modelstore::server
