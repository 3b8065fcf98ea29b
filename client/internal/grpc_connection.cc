// One channel per lane, each with a connection of its own. A stream belongs to
// the thread that uses it: that thread polls the stream's completion queue and so
// does the network's work itself, without handing bytes from thread to thread.
#include "client/internal/grpc_connection.h"

#include <grpc/support/time.h>
#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#include "proto/contract/limits.h"
#include "proto/contract/mutex.h"
#include "proto/contract/status_codec.h"

namespace modelstore::internal {
namespace {

using AsyncStream = grpc::GenericClientAsyncReaderWriter;

// Unary calls have a channel apart from the streams, lest they wait behind bulk.
constexpr int kControlLane = -1;

grpc::ChannelArguments Arguments(int lane) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  args.SetMaxSendMessageSize(-1);
  // A restarted server is to be found soon: gRPC's own patience grows to minutes.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // gRPC's transparent retries would buffer what we resend by ourselves.
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt("modelstore.lane", lane);
  return args;
}

// gRPC takes memory for each message that arrives and frees it soon after. glibc gives
// it back to the kernel at once, and the next message faults it in again, for a third of
// what a load costs the client, until the process first frees a large block: then it
// keeps up to twice as much. A process that trains has usually done so; here the others
// do. One that set mallopt() has the say: this changes nothing there.
void LetFreedMemoryStay() {
  constexpr size_t kLargestThatCounts = size_t{31} << 20;
  // Volatile, lest the compiler see that nobody uses it.
  void* volatile block = std::malloc(kLargestThatCounts);
  std::free(block);
}

class Lanes {
 public:
  explicit Lanes(std::string target) : target_(std::move(target)) {}

  std::shared_ptr<grpc::Channel> Get(int lane) {
    MutexLock lock(mutex_);
    std::shared_ptr<grpc::Channel>& channel = channels_[lane];
    if (channel == nullptr) {
      channel = grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(),
                                          Arguments(lane));
    }
    return channel;
  }

  // After a stream broke: the next one gets a new connection, since this one may
  // be dead without knowing it. The old closes with its last stream, and lets go
  // of every payload.
  void Drop(int lane, const std::shared_ptr<grpc::Channel>& channel) {
    MutexLock lock(mutex_);
    const auto it = channels_.find(lane);
    if (it != channels_.end() && it->second == channel) channels_.erase(it);
  }

 private:
  const std::string target_;
  Mutex mutex_;
  std::map<int, std::shared_ptr<grpc::Channel>> channels_ GUARDED_BY(mutex_);
};

// gRPC's monotonic clock may count from elsewhere than the steady one.
gpr_timespec ToGrpc(Deadline deadline) {
  const Deadline now = std::chrono::steady_clock::now();
  if (deadline == Deadline::max()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  const auto left = std::max(deadline, now) - now;
  return gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_nanos(std::chrono::nanoseconds(left).count(), GPR_TIMESPAN));
}

// Hands a payload's owner to the slice, which releases it when the transport has
// sent the bytes.
grpc::Slice PayloadSlice(Payload payload) {
  auto* owner = new std::shared_ptr<const void>(std::move(payload.owner));
  return grpc::Slice(
      const_cast<char*>(payload.bytes.data()), payload.bytes.size(),
      [](void* o) { delete static_cast<std::shared_ptr<const void>*>(o); }, owner);
}

grpc::ByteBuffer ToByteBuffer(const std::string& head, std::vector<Payload> payloads) {
  std::vector<grpc::Slice> slices;
  slices.reserve(payloads.size() + 1);
  slices.emplace_back(head);
  for (Payload& payload : payloads) {
    if (!payload.bytes.empty()) slices.push_back(PayloadSlice(std::move(payload)));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::StatusOr<std::string> ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (grpc::Status s = buffer.Dump(&slices); !s.ok()) return FromGrpcStatus(s);
  std::string out;
  out.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    out.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return out;
}

// A call that the other end's transport reset or cancelled, for want of memory or
// because the process is going down, is cut: gRPC words that as several codes.
absl::Status FromTransport(const grpc::Status& status, bool cancelled_here = false) {
  if (status.error_code() == grpc::StatusCode::CANCELLED && !cancelled_here) {
    return absl::UnavailableError("the server cancelled the call");
  }
  if (!status.ok() && status.error_message().find("RST_STREAM") != std::string::npos) {
    return absl::UnavailableError(status.error_message());
  }
  return FromGrpcStatus(status);
}

enum class Op : intptr_t { kStart = 1, kWrite, kWritesDone, kRead, kFinish };

void* Tag(Op op) { return reinterpret_cast<void*>(op); }

// What gRPC may still touch after the caller has lost patience.
struct Call {
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::unique_ptr<AsyncStream> stream;
  grpc::ByteBuffer incoming;
  grpc::Status status;
};

class GrpcStream final : public Stream {
 public:
  GrpcStream(std::shared_ptr<Lanes> lanes, int lane)
      : lanes_(std::move(lanes)),
        lane_(lane),
        channel_(lanes_->Get(lane)),
        call_(std::make_unique<Call>()) {}

  ~GrpcStream() override {
    if (!finished_ok_) lanes_->Drop(lane_, channel_);
    if (!finished_) Cancel();
    call_->queue.Shutdown();
    // A cancelled call ends its operations at once. Should gRPC not keep that
    // promise, the call is left behind rather than pulled from under it.
    const Deadline patience = After(std::chrono::seconds(10));
    void* tag;
    bool ok;
    grpc::CompletionQueue::NextStatus next;
    do {
      next = call_->queue.AsyncNext(&tag, &ok, ToGrpc(patience));
    } while (next == grpc::CompletionQueue::GOT_EVENT);
    if (next != grpc::CompletionQueue::SHUTDOWN) (void)call_.release();
  }

  absl::Status Start(std::string_view method, Deadline deadline) {
    grpc::GenericStub stub(channel_);
    call_->stream = stub.PrepareCall(&call_->context, std::string(method), &call_->queue);
    call_->stream->StartCall(Tag(Op::kStart));
    return Wait(Op::kStart, deadline);
  }

  absl::Status Write(std::string head, std::vector<Payload> payloads,
                     Deadline deadline) override {
    if (broken_) return Broken();
    call_->stream->Write(ToByteBuffer(head, std::move(payloads)), Tag(Op::kWrite));
    return Wait(Op::kWrite, deadline);
  }

  absl::Status WritesDone(Deadline deadline) override {
    if (broken_) return Broken();
    call_->stream->WritesDone(Tag(Op::kWritesDone));
    return Wait(Op::kWritesDone, deadline);
  }

  absl::StatusOr<ReceivedMessage> Read(Deadline deadline) override {
    if (broken_) return Broken();
    // One whose wait ran out is under way still.
    if (!reading_) call_->stream->Read(&call_->incoming, Tag(Op::kRead));
    absl::Status s = Wait(Op::kRead, deadline);
    reading_ = pending_ = absl::IsDeadlineExceeded(s);
    if (absl::IsUnavailable(s)) return absl::OutOfRangeError("end of the stream");
    if (!s.ok()) return s;
    auto slices = std::make_shared<std::vector<grpc::Slice>>();
    if (grpc::Status dumped = call_->incoming.Dump(slices.get()); !dumped.ok()) {
      return FromGrpcStatus(dumped);
    }
    call_->incoming.Clear();
    ReceivedMessage message;
    message.fragments.reserve(slices->size());
    for (const grpc::Slice& slice : *slices) {
      message.fragments.emplace_back(reinterpret_cast<const char*>(slice.begin()),
                                     slice.size());
    }
    message.owner = std::move(slices);
    return message;
  }

  absl::Status Finish(Deadline deadline) override {
    if (finished_) return FromTransport(call_->status, cancelled_);
    if (pending_) Cancel();  // An operation whose wait ran out is under way still.
    if (!finish_started_) {
      finish_started_ = true;
      call_->stream->Finish(&call_->status, Tag(Op::kFinish));
    }
    if (absl::Status s = Wait(Op::kFinish, deadline); !s.ok()) return s;
    finished_ = true;
    finished_ok_ = call_->status.ok();
    return FromTransport(call_->status, cancelled_);
  }

  void Cancel() override {
    cancelled_ = true;
    call_->context.TryCancel();
  }

 private:
  static absl::Status Broken() { return absl::UnavailableError("the stream is broken"); }

  // Polls until `op` is done. Completions of operations given up before pass by.
  absl::Status Wait(Op op, Deadline deadline) {
    while (true) {
      void* tag;
      bool ok;
      switch (call_->queue.AsyncNext(&tag, &ok, ToGrpc(deadline))) {
        case grpc::CompletionQueue::GOT_EVENT:
          if (tag != Tag(op)) continue;
          if (ok) return absl::OkStatus();
          if (op != Op::kRead) broken_ = true;
          return Broken();
        case grpc::CompletionQueue::TIMEOUT:
          if (op != Op::kRead) broken_ = pending_ = true;
          return absl::DeadlineExceededError("the stream made no progress in time");
        case grpc::CompletionQueue::SHUTDOWN:
          broken_ = true;
          return Broken();
      }
    }
  }

  const std::shared_ptr<Lanes> lanes_;
  const int lane_;
  const std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Call> call_;
  bool broken_ = false;
  bool pending_ = false;
  bool reading_ = false;
  bool finish_started_ = false;
  bool finished_ = false;
  bool finished_ok_ = false;
  std::atomic<bool> cancelled_{false};  // By this end.
};

class GrpcConnection final : public Connection {
 public:
  GrpcConnection(std::string target, const ConnectOptions& options)
      : options_(options), lanes_(std::make_shared<Lanes>(std::move(target))) {}

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    grpc::ClientContext context;
    context.set_deadline(ToGrpc(deadline));
    grpc::CompletionQueue queue;
    const std::shared_ptr<grpc::Channel> channel = lanes_->Get(kControlLane);
    grpc::GenericStub stub(channel);
    auto call = stub.PrepareUnaryCall(&context, std::string(method),
                                      ToByteBuffer(request, {}), &queue);
    grpc::ByteBuffer response;
    grpc::Status status;
    call->StartCall();
    call->Finish(&response, &status, nullptr);
    // Bounded: the call itself has the deadline, and ends with it.
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) continue;
    if (!status.ok()) {
      // A connection that did not answer in time may be dead. One that could not be
      // made waits for a time of gRPC's own, which passes only while somebody polls:
      // a new one is tried when the caller tries again.
      if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
          status.error_code() == grpc::StatusCode::UNAVAILABLE) {
        lanes_->Drop(kControlLane, channel);
      }
      return FromTransport(status);
    }
    return ToString(response);
  }

  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    auto stream = std::make_unique<GrpcStream>(lanes_, lane);
    absl::Status s = stream->Start(method, deadline);
    if (!s.ok()) {
      if (absl::IsDeadlineExceeded(s)) return s;
      absl::Status reason = stream->Finish(deadline);
      return reason.ok() ? s : reason;
    }
    return std::unique_ptr<Stream>(std::move(stream));
  }

  const ConnectOptions& options() const override { return options_; }

 private:
  const ConnectOptions options_;
  const std::shared_ptr<Lanes> lanes_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> MakeGrpcConnection(
    std::string_view target, const ConnectOptions& options) {
  // gRPC's threads and locks do not pass through fork(): what a child did with it
  // would hang.
  static const pid_t first_user = getpid();
  if (getpid() != first_user) {
    return absl::FailedPreconditionError(
        "this process was forked from one that had connected already: connect first in "
        "the child, or start it by exec");
  }
  static const bool once = (LetFreedMemoryStay(), true);
  (void)once;
  return std::make_shared<GrpcConnection>(std::string(target), options);
}

}  // namespace modelstore::internal
