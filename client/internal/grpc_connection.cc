// One channel, with its own connection, per lane. A stream is used by one thread, which
// polls the stream's completion queue and thereby does the network I/O itself; bytes are
// not passed between threads.
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

// Unary calls have their own channel, so that they do not wait behind bulk data.
constexpr int kControlLane = -1;

grpc::ChannelArguments Arguments(int lane) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  args.SetMaxSendMessageSize(-1);
  // Reconnects quickly to a restarted server: gRPC's default backoff grows to minutes.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // This library resends by itself; gRPC's transparent retries would buffer the bytes.
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt("modelstore.lane", lane);
  return args;
}

// gRPC allocates memory for each received message and frees it soon after. By default
// glibc returns such blocks to the kernel at once, and the page faults of the next
// message take a third of the client's time in a load. After a process has freed a large
// block, glibc raises its thresholds and keeps up to twice that size. Training processes
// have usually done so; this call does it for others. No effect if mallopt() was called.
void KeepFreedMemory() {
  constexpr size_t kLargestCountedBytes = size_t{31} << 20;
  // Volatile, so that the compiler does not remove the unused allocation.
  void* volatile block = std::malloc(kLargestCountedBytes);
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

  // Called after a stream broke: the next stream gets a new connection, as this one may
  // be dead without having noticed. The old connection closes with its last stream, which
  // releases every payload.
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

// Converts the remaining time, as gRPC's monotonic clock may have another epoch.
gpr_timespec ToGrpc(Deadline deadline) {
  const Deadline now = std::chrono::steady_clock::now();
  if (deadline == Deadline::max()) return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  const auto left = std::max(deadline, now) - now;
  return gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_nanos(std::chrono::nanoseconds(left).count(), GPR_TIMESPAN));
}

// The slice holds the payload's owner and releases it when the transport has sent the
// bytes.
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

// If the server's transport resets or cancels a call, because of memory limits or a
// shutdown, gRPC reports various codes. They are all UNAVAILABLE here, so that the call
// is retried.
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

// Everything that gRPC may access after the caller has stopped waiting.
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
    // A cancelled call completes its operations soon. If gRPC does not, the call is
    // leaked rather than destroyed while gRPC uses it.
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
    // A read whose deadline passed is still pending: wait for it again.
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
    if (pending_) Cancel();  // An operation whose deadline passed is still pending.
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

  // Polls until `op` completes. Ignores completions of operations whose deadline passed.
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
  bool broken_ = false;   // no further reads or writes
  bool pending_ = false;  // an operation was not completed before its deadline
  bool reading_ = false;  // the pending operation is a read
  bool finish_started_ = false;
  bool finished_ = false;
  bool finished_ok_ = false;
  std::atomic<bool> cancelled_{false};  // by the client
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
    // Returns in time, as the call itself has the deadline.
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    queue.Shutdown();
    while (queue.Next(&tag, &ok)) continue;
    if (!status.ok()) {
      // A connection that did not answer in time may be dead. One that could not be
      // established backs off, but gRPC's timer advances only while a queue is polled. In
      // both cases the next attempt uses a new connection.
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
  // gRPC's threads and locks do not survive fork(): calls in the child would hang.
  static const pid_t first_user = getpid();
  if (getpid() != first_user) {
    return absl::FailedPreconditionError(
        "this process was forked from one that had connected already: connect first in "
        "the child, or start it by exec");
  }
  static const bool once = (KeepFreedMemory(), true);
  (void)once;
  return std::make_shared<GrpcConnection>(std::string(target), options);
}

}  // namespace modelstore::internal
