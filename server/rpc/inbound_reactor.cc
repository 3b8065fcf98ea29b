#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/status_codec.h"
#include "proto/contract/steady_time.h"
#include "server/rpc/byte_buffers.h"
#include "server/rpc/reactors.h"

namespace modelstore::server {
namespace {

constexpr char kSaveMethod[] = "/modelstore.v1.CheckpointTransfer/SaveCheckpoint";

// Stores one message on the pool while the one after it is being read:
//
//   while (read(&message)) session.OnMessage(message);
//   finish(session.OnEnd());
class InboundReactor final : public grpc::ServerReadReactor<grpc::ByteBuffer>,
                             public WatchedStream {
 public:
  InboundReactor(RpcHost* host, const std::string& method,
                 grpc::CallbackServerContext* context, grpc::ByteBuffer* response)
      : host_(host),
        method_(method),
        context_(context),
        response_(response),
        record_(host, method, context) {
    host_->streams++;
    host_->gauges->active_save_streams++;
    host_->watch->Add(this);
    const absl::Status admitted = host->AdmitStream();
    Advance([&]() REQUIRES(mutex_) {
      if (!admitted.ok()) EndWith(admitted);
    });
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      record_.AddReceived(incoming_.Length());
      host_->inbound->Charge(Bytes(incoming_));
    }
    Advance([&]() REQUIRES(mutex_) {
      reading_ = false;
      if (ok) {
        next_ = std::move(incoming_);
        incoming_ = grpc::ByteBuffer();
      } else {
        all_read_ = true;
      }
    });
  }

  // The client is silent: neither a message nor the end has come.
  void OnTick(absl::Time idle_since, absl::Time stalled_since) override {
    Advance([&]() REQUIRES(mutex_) {
      if (over_ || working_ || next_ || !reading_ || read_since_ > idle_since) return;
      const absl::Duration idle =
          absl::Trunc(SteadyNow() - read_since_, absl::Milliseconds(100));
      EndWith(MakeError(
          ErrorReason::STREAM_IDLE,
          absl::StrCat("stream idle for ", absl::FormatDuration(idle), ", closed; ",
                       method_ == kSaveMethod ? "nothing was saved"
                                              : "uploaded chunks are kept")));
    });
  }

  void OnDone() override {
    host_->watch->Remove(this);
    host_->gauges->active_save_streams--;
    host_->streams--;
    record_.End();
    delete this;
  }

 private:
  static int64_t Bytes(const grpc::ByteBuffer& buffer) {
    return static_cast<int64_t>(buffer.Length());
  }

  void EndWith(const absl::Status& status) REQUIRES(mutex_) {
    over_ = true;
    status_ = status;
  }

  // Changes the state, and does what it asks for next. The flag that each step set
  // keeps this alive until the step is over: where `change` clears it, another
  // thread may end the RPC, and this with it, once the lock is released.
  template <typename Change>
  void Advance(Change change) {
    RpcHost* const host = host_;
    bool store = false, end = false, ask = false, finish = false;
    int64_t dropped = 0;
    {
      MutexLock lock(mutex_);
      change();
      if (over_ && next_) {
        dropped = Bytes(*next_);
        next_.reset();
      }
      if (!over_ && !working_ && next_) {
        current_ = *std::move(next_);
        next_.reset();
        store = working_ = true;
      } else if (!over_ && !working_ && all_read_) {
        end = working_ = true;
      }
      if (!over_ && !asking_ && !reading_ && !next_ && !all_read_) ask = asking_ = true;
      if (over_ && !working_ && !asking_ && !finishing_) finish = finishing_ = true;
    }
    if (store) host->pool->Continue([this] { Store(); });
    if (end) host->pool->Continue([this] { TakeEnd(); });
    // While too much is in hand the next message stays with its sender.
    if (ask) host->inbound->Acquire(this, 0, [this] { Read(); });
    if (finish) host->pool->Continue([this] { End(); });
    if (dropped > 0) host->inbound->Release(dropped);
  }

  void Read() {
    bool read = false;
    {
      MutexLock lock(mutex_);
      read = reading_ = !over_;
      read_since_ = SteadyNow();
    }
    if (read) StartRead(&incoming_);
    Advance([this]() REQUIRES(mutex_) { asking_ = false; });
  }

  void Store() {
    absl::Status status;
    if (session_ == nullptr) {
      auto session = host_->service->OpenInbound(method_);
      status = session.status();
      if (session.ok()) session_ = *std::move(session);
    }
    const int64_t bytes = Bytes(current_);
    if (status.ok()) {
      const Fragments fragments(current_);
      status = session_->OnMessage(fragments.views());
    }
    current_.Clear();
    host_->inbound->Release(bytes);
    Advance([&]() REQUIRES(mutex_) {
      working_ = false;
      if (!status.ok() && !over_) EndWith(status);
    });
  }

  void TakeEnd() {
    absl::StatusOr<std::string> answer = Answer();
    if (answer.ok()) {
      *response_ = ToBuffer(*answer);
      record_.AddSent(answer->size());
    }
    Advance([&]() REQUIRES(mutex_) {
      working_ = false;
      EndWith(answer.status());
    });
  }

  absl::StatusOr<std::string> Answer() {
    if (context_->IsCancelled()) return ClientLeft();
    if (session_ == nullptr) {
      auto session = host_->service->OpenInbound(method_);
      if (!session.ok()) return session.status();
      session_ = *std::move(session);
    }
    return session_->OnEnd();
  }

  void End() {
    session_.reset();
    absl::Status status;
    {
      MutexLock lock(mutex_);
      status = status_;
    }
    record_.SetStatus(status);
    Finish(ToGrpcStatus(status));
  }

  RpcHost* const host_;
  const std::string& method_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  RpcRecord record_;
  // What gRPC reads into, while reading_; what is being stored, while working_.
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer current_;
  // Used on the pool only, one step at a time.
  std::unique_ptr<InboundSession> session_;

  Mutex mutex_;
  std::optional<grpc::ByteBuffer> next_ GUARDED_BY(mutex_);
  bool asking_ GUARDED_BY(mutex_) = false;  // for room to read, until it is read
  bool reading_ GUARDED_BY(mutex_) = false;
  bool working_ GUARDED_BY(mutex_) = false;
  bool all_read_ GUARDED_BY(mutex_) = false;
  bool over_ GUARDED_BY(mutex_) = false;
  bool finishing_ GUARDED_BY(mutex_) = false;
  absl::Time read_since_ GUARDED_BY(mutex_);
  absl::Status status_ GUARDED_BY(mutex_);
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* StartInbound(
    RpcHost* host, const std::string& method, grpc::CallbackServerContext* context,
    grpc::ByteBuffer* response) {
  return new InboundReactor(host, method, context, response);
}

}  // namespace modelstore::server
