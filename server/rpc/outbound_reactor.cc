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

// Prepares one message on the pool while the one before it is being sent, once the
// client has shown that it reads. A session that waits for something to happen has
// no thread and no share of the byte budget meanwhile:
//
//   while (message = session.Next()) {
//     write(message);
//     wait until session is ready;
//   }
//   finish(status);
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

  void OnWriteDone(bool ok) override {
    Advance([&]() REQUIRES(mutex_) {
      writing_ = false;
      written_bytes_ += static_cast<int64_t>(current_.Length());
      current_.Clear();
      if (!ok) Abandon(ClientLeft());
    });
  }

  void OnCancel() override {
    Advance([this]() REQUIRES(mutex_) { Abandon(ClientLeft()); });
  }

  void OnTick(absl::Time idle_since, absl::Time stalled_since) override {
    EndWait();
    {
      // The client does not read: what it was sent stays here. Only cancelling
      // lets go of it; a status would queue behind.
      MutexLock lock(mutex_);
      if (!writing_ || stalled_ || write_since_ > stalled_since) return;
      stalled_ = true;
      Abandon(MakeError(ErrorReason::STREAM_IDLE, "the client reads nothing"));
    }
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
  // A session that waits is not kept by a shutdown, and not left without its turn.
  void EndWait() {
    {
      MutexLock lock(mutex_);
      if (!waiting_) return;
      if (!host_->draining && SteadyNow() < wait_until_) return;
      if (!session_->StopWaiting()) return;
    }
    Advance([this]() REQUIRES(mutex_) {
      waiting_ = false;
      due_ = true;
      if (!host_->draining || ended_) return;
      ended_ = true;
      status_ = host_->Admit();
    });
  }

  // The session's turn has come, or another step's end shows what is next.
  bool Waits() REQUIRES(mutex_) {
    if (session_ == nullptr || due_) return false;
    const auto until = session_->Wait(
        [this] { Advance([this]() REQUIRES(mutex_) { waiting_ = false; }); });
    if (!until.has_value()) return false;
    wait_until_ = *until;
    return waiting_ = true;
  }

  // No more is sent, whatever is ready.
  void Abandon(const absl::Status& why) REQUIRES(mutex_) {
    abandoned_ = true;
    ready_.reset();
    // What was sent is let go of at the RPC's end alone: to wait for bytes
    // before it would be to wait for oneself.
    if (preparing_ && host_->outbound->Withdraw(this)) preparing_ = false;
    if (waiting_ && session_->StopWaiting()) waiting_ = false;
    if (session_ != nullptr) session_->Cancel();
    if (ended_) return;
    ended_ = true;
    status_ = why;
  }

  // Changes the state, and does what it asks for next. The flag that each step set
  // keeps this alive until the step is over: where `change` clears it, another
  // thread may end the RPC, and this with it, once the lock is released.
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

  void Prepare() {
    int64_t held = kMaxChunkBytes;
    auto message = NextMessage();
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
      // A plan may be larger than what was acquired; what is over is charged.
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

  absl::StatusOr<std::optional<OutboundMessage>> NextMessage() {
    {
      MutexLock lock(mutex_);
      if (abandoned_) return ClientLeft();
    }
    if (session_ == nullptr) {
      auto session = host_->service->OpenOutbound(method_, Fragments(*request_).Join());
      if (!session.ok()) return session.status();
      MutexLock lock(mutex_);
      session_ = *std::move(session);
    }
    return session_->Next();
  }

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
  // The count of its kind.
  std::atomic<int>& streams_;
  RpcRecord record_;

  Mutex mutex_;
  // Written on the pool, under the lock; used there without it.
  std::unique_ptr<OutboundSession> session_;
  // What gRPC is sending, while writing_.
  grpc::ByteBuffer current_;
  std::optional<grpc::ByteBuffer> ready_ GUARDED_BY(mutex_);
  bool writing_ GUARDED_BY(mutex_) = false;
  int64_t written_bytes_ GUARDED_BY(mutex_) = 0;
  bool preparing_ GUARDED_BY(mutex_) = false;
  // For something to happen; no longer than until then.
  bool waiting_ GUARDED_BY(mutex_) = false;
  absl::Time wait_until_ GUARDED_BY(mutex_);
  // Next() is called without waiting once more.
  bool due_ GUARDED_BY(mutex_) = false;
  bool ended_ GUARDED_BY(mutex_) = false;
  bool abandoned_ GUARDED_BY(mutex_) = false;
  bool finishing_ GUARDED_BY(mutex_) = false;
  bool stalled_ GUARDED_BY(mutex_) = false;
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
