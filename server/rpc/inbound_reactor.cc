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

// Client-streaming RPC. Stores one message on the pool while gRPC reads the next:
//
//   while (read(&message)) session.OnMessage(message);
//   finish(session.OnEnd());
//
// A stream holds at most three messages: one being read (incoming_), one waiting
// (next_) and one being stored (current_). Flow control pushes back on the client
// beyond that. At most one pool task per stream runs at a time (working_), so the
// session needs no lock.
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
    // A refused stream goes through Advance() too: it is finished on the pool.
    Advance([&]() REQUIRES(mutex_) {
      if (!admitted.ok()) FinishWith(admitted);
    });
  }

  void OnReadDone(bool ok) override {
    // The size of a message is known only now, so it is charged even above the limit.
    // The budget stops the next read instead.
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
        // Half-closed or cancelled; Answer() tells the two apart.
        all_read_ = true;
      }
    });
  }

  // Ends the stream if the client has sent nothing since `idle_since`. Time spent
  // storing a message or waiting for budget does not count: reading_ is false then.
  void OnTick(absl::Time idle_since, absl::Time stalled_since) override {
    Advance([&]() REQUIRES(mutex_) {
      if (over_ || working_ || next_ || !reading_ || read_since_ > idle_since) return;
      const absl::Duration idle =
          absl::Trunc(SteadyNow() - read_since_, absl::Milliseconds(100));
      FinishWith(MakeError(
          ERROR_REASON_STREAM_IDLE,
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

  // Stores no further message. Advance() finishes the RPC when no step runs any more.
  void FinishWith(const absl::Status& status) REQUIRES(mutex_) {
    over_ = true;
    status_ = status;
  }

  // Applies `change` under the lock, then starts the steps that the new state allows.
  //
  // Lifetime: a step's flag (working_, asking_, finishing_) keeps `this` alive until a
  // later Advance() clears it. After the lock is released, `this` may be used only in a
  // step whose flag this call has set; otherwise another thread may already have
  // finished the RPC and deleted it. That is why `host` is copied first.
  template <typename Change>
  void Advance(Change change) {
    RpcHost* const host = host_;
    bool store = false, end = false, ask = false, finish = false;
    int64_t dropped = 0;
    {
      MutexLock lock(mutex_);
      change();
      // A message that nobody will store must not keep its share of the budget.
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
    // Without budget the next message is not read, so it stays with the client. Called
    // without the lock: Read() may run at once, and takes it.
    if (ask) host->inbound->Acquire(this, 0, [this] { Read(); });
    if (finish) host->pool->Continue([this] { End(); });
    if (dropped > 0) host->inbound->Release(dropped);
  }

  // The budget has been granted: reads the next message, unless the RPC has ended. Runs
  // on any thread that releases budget, so it only starts the read. asking_ stays set
  // until StartRead() has returned, so that OnReadDone() cannot finish the RPC before.
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

  // On the pool: passes current_ to the session and returns its bytes to the budget.
  // The session is opened with the first message, as opening may read storage.
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
      if (!status.ok() && !over_) FinishWith(status);
    });
  }

  // On the pool: the client has half-closed and every message is stored.
  void TakeEnd() {
    absl::StatusOr<std::string> answer = Answer();
    if (answer.ok()) {
      *response_ = ToBuffer(*answer);
      record_.AddSent(answer->size());
    }
    Advance([&]() REQUIRES(mutex_) {
      working_ = false;
      FinishWith(answer.status());
    });
  }

  absl::StatusOr<std::string> Answer() {
    // A cancelled stream looks half-closed; OnEnd() would commit an incomplete save.
    if (context_->IsCancelled()) return ClientDisconnected();
    // A stream without messages; the session decides whether that is an error.
    if (session_ == nullptr) {
      auto session = host_->service->OpenInbound(method_);
      if (!session.ok()) return session.status();
      session_ = *std::move(session);
    }
    return session_->OnEnd();
  }

  // On the pool, as destroying a session may write. Must be last: Finish() leads to
  // OnDone(), which deletes this.
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
  // Owned by gRPC while reading_, and by the pool while working_; no lock needed.
  grpc::ByteBuffer incoming_;
  grpc::ByteBuffer current_;
  // Used on the pool only, by one step at a time.
  std::unique_ptr<InboundSession> session_;

  Mutex mutex_;
  // Read, not yet being stored.
  std::optional<grpc::ByteBuffer> next_ GUARDED_BY(mutex_);
  bool asking_ GUARDED_BY(mutex_) = false;     // waits for budget, or starts a read
  bool reading_ GUARDED_BY(mutex_) = false;    // gRPC reads into incoming_
  bool working_ GUARDED_BY(mutex_) = false;    // a pool task uses session_
  bool all_read_ GUARDED_BY(mutex_) = false;   // no message follows
  bool over_ GUARDED_BY(mutex_) = false;       // status_ is final
  bool finishing_ GUARDED_BY(mutex_) = false;  // End() is queued or has run
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
