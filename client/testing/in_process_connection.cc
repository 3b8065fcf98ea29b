#include "client/testing/in_process_connection.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/contract/steady_time.h"

namespace modelstore::internal {
namespace {

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

absl::Status Cut() { return absl::UnavailableError("the connection was cut"); }

// Splits a message into fragments, as a transport might deliver it.
ReceivedMessage Fragmented(std::string bytes, size_t fragment_bytes) {
  auto owner = std::make_shared<std::string>(std::move(bytes));
  ReceivedMessage message;
  const std::string_view all(*owner);
  const size_t step =
      fragment_bytes == 0 ? std::max<size_t>(all.size(), 1) : fragment_bytes;
  for (size_t at = 0; at < all.size(); at += step) {
    message.fragments.push_back(all.substr(at, step));
  }
  message.owner = std::move(owner);
  return message;
}

}  // namespace

// One stream. The client's calls drive the session of the service directly: a Write()
// runs OnMessage(), a Read() runs Next(). The stream has ended once status_ is set.
class InProcessConnection::InProcessStream final : public Stream {
 public:
  InProcessStream(InProcessConnection* connection, server::Service* service,
                  server::MethodKind kind, std::string_view method)
      : connection_(connection), service_(service), kind_(kind), method_(method) {
    if (kind_ == server::MethodKind::kInbound) {
      auto session = service_->OpenInbound(View(method_));
      if (session.ok()) {
        inbound_ = *std::move(session);
      } else {
        status_ = session.status();
      }
    }
  }

  ~InProcessStream() override { connection_->Forget(this); }

  absl::Status Write(std::string head, std::vector<Payload> payloads,
                     Deadline deadline) override {
    const Verdict verdict = connection_->CountMessage(deadline);
    if (verdict == Verdict::kStall) return Stall(deadline);
    MutexLock lock(mutex_);
    if (verdict == Verdict::kCutBefore) End(Cut());
    if (status_.has_value()) return Cut();
    if (kind_ == server::MethodKind::kOutbound) {
      request_ = std::move(head);
    } else {
      std::vector<absl::string_view> fragments = {head};
      for (const Payload& p : payloads) fragments.push_back(View(p.bytes));
      if (absl::Status s = inbound_->OnMessage(fragments); !s.ok()) End(s);
    }
    if (verdict == Verdict::kCutAfter) End(Cut());
    return status_.has_value() ? Cut() : absl::OkStatus();
  }

  absl::Status WritesDone(Deadline) override {
    MutexLock lock(mutex_);
    if (status_.has_value()) return Cut();
    if (kind_ == server::MethodKind::kInbound) {
      response_ = inbound_->OnEnd();
      if (!response_->ok()) End(response_->status());
    } else {
      auto session = service_->OpenOutbound(View(method_), request_);
      if (session.ok()) {
        outbound_ = *std::move(session);
      } else {
        End(session.status());
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ReceivedMessage> Read(Deadline deadline) override {
    const Verdict verdict = connection_->CountMessage(deadline);
    if (verdict == Verdict::kStall) return Stall(deadline);
    const Faults faults = connection_->faults();
    MutexLock lock(mutex_);
    if (verdict == Verdict::kCutBefore) End(Cut());
    if (status_.has_value()) return absl::OutOfRangeError("end of the stream");
    absl::StatusOr<ReceivedMessage> message = kind_ == server::MethodKind::kInbound
                                                  ? TakeResponse(faults)
                                                  : TakeNext(faults, deadline);
    if (verdict == Verdict::kCutAfter) End(Cut());
    return message;
  }

  absl::Status Finish(Deadline) override {
    MutexLock lock(mutex_);
    // A client that stops reading early gets OK.
    if (!status_.has_value()) End(absl::OkStatus());
    return *status_;
  }

  void Cancel() override {
    MutexLock lock(stall_mutex_);
    cancelled_ = true;
    stall_over_.NotifyAll();
  }

  // Ends the stream with its first status and destroys the session.
  void End(const absl::Status& status) REQUIRES(mutex_) {
    if (!status_.has_value()) status_ = status;
    inbound_.reset();
    outbound_.reset();
  }

  // Ends the stream from another thread. Cancel() comes first: a call that waits holds
  // mutex_ and releases it only when it is woken.
  void Kill() {
    Cancel();
    MutexLock lock(mutex_);
    End(Cut());
  }

 private:
  absl::StatusOr<ReceivedMessage> TakeResponse(const Faults& faults) REQUIRES(mutex_) {
    if (!response_.has_value()) return absl::OutOfRangeError("no response yet");
    std::string bytes = **std::exchange(response_, std::nullopt);
    End(absl::OkStatus());
    return Fragmented(std::move(bytes), faults.fragment_bytes);
  }

  // Waits until the session is ready, as the server's reactor does.
  absl::Status WaitForSession(Deadline deadline) REQUIRES(mutex_) {
    const auto until = outbound_->Wait([this] {
      MutexLock lock(stall_mutex_);
      woken_ = true;
      stall_over_.NotifyAll();
    });
    if (!until.has_value()) return absl::OkStatus();
    MutexLock lock(stall_mutex_);
    const Deadline wake = After(absl::ToChronoNanoseconds(*until - SteadyNow()));
    stall_over_.WaitUntil(stall_mutex_, std::min(wake, deadline),
                          [this]()
                              REQUIRES(stall_mutex_) { return woken_ || cancelled_; });
    const bool cancelled = cancelled_;
    lock.Unlock();
    const bool stopped = outbound_->CancelWait();
    lock.Lock();
    // CancelWait() came too late: the session is about to call the callback, which uses
    // this object, so wait for it.
    while (!stopped && !woken_) {
      stall_over_.WaitFor(stall_mutex_, absl::Seconds(1),
                          [this]() REQUIRES(stall_mutex_) { return woken_; });
    }
    const bool woken = std::exchange(woken_, false);
    if (cancelled) return Cut();
    if (woken || *until <= SteadyNow()) return absl::OkStatus();
    return absl::DeadlineExceededError("nothing came in time");
  }

  // Runs the session until it has a message. A session that is limited in rate says when
  // to call it again; this waits on the calling thread.
  absl::StatusOr<ReceivedMessage> TakeNext(const Faults& faults, Deadline deadline)
      REQUIRES(mutex_) {
    absl::StatusOr<std::optional<server::OutboundMessage>> next;
    do {
      if (absl::Status s = WaitForSession(deadline); !s.ok()) {
        if (!absl::IsDeadlineExceeded(s)) End(s);
        return s;
      }
      next = outbound_->Next();
      if (next.ok() && next->has_value()) {
        absl::SleepFor((*next)->again_after.value_or(absl::ZeroDuration()));
      }
    } while (next.ok() && next->has_value() && (*next)->again_after);
    if (!next.ok()) End(next.status());
    if (!next.ok() || !next->has_value()) {
      End(absl::OkStatus());
      return absl::OutOfRangeError("end of the stream");
    }
    auto message = std::make_shared<server::OutboundMessage>(std::move(**next));
    if (faults.tamper != nullptr || faults.fragment_bytes > 0) {
      std::string bytes = message->head;
      for (const auto& p : message->payloads) absl::StrAppend(&bytes, p.view());
      if (faults.tamper != nullptr) faults.tamper(&bytes);
      return Fragmented(std::move(bytes), faults.fragment_bytes);
    }
    ReceivedMessage received;
    received.fragments.emplace_back(message->head);
    for (const auto& p : message->payloads) {
      received.fragments.emplace_back(p.view().data(), p.view().size());
    }
    received.owner = std::move(message);
    return received;
  }

  // Waits until the deadline or Cancel(), as for a message that never arrives.
  absl::Status Stall(Deadline deadline) {
    MutexLock lock(stall_mutex_);
    const bool cancelled = stall_over_.WaitUntil(
        stall_mutex_, deadline, [this]() REQUIRES(stall_mutex_) { return cancelled_; });
    return cancelled ? Cut() : absl::DeadlineExceededError("the stream stalled");
  }

  InProcessConnection* const connection_;
  server::Service* const service_;
  const server::MethodKind kind_;
  const std::string method_;

  Mutex mutex_;
  std::unique_ptr<server::InboundSession> inbound_ GUARDED_BY(mutex_);
  std::unique_ptr<server::OutboundSession> outbound_ GUARDED_BY(mutex_);
  std::string request_ GUARDED_BY(mutex_);
  std::optional<absl::StatusOr<std::string>> response_ GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ GUARDED_BY(mutex_);

  // Separate from mutex_, so that Cancel() and the session's callback work while another
  // thread waits with mutex_ held.
  Mutex stall_mutex_;
  CondVar stall_over_;
  bool cancelled_ GUARDED_BY(stall_mutex_) = false;
  bool woken_ GUARDED_BY(stall_mutex_) = false;
};

InProcessConnection::InProcessConnection(const ConnectOptions& options)
    : options_(options) {}

InProcessConnection::~InProcessConnection() = default;

void InProcessConnection::SetService(server::Service* service) {
  MutexLock lock(mutex_);
  service_ = service;
  for (InProcessStream* stream : streams_) stream->Kill();
  // New calls see the new service; those in progress still use the old one.
  changed_.WaitUntil(mutex_, SteadyNow() + absl::Seconds(60),
                     [this]() REQUIRES(mutex_) { return active_calls_ == 0; });
}

void InProcessConnection::SetFaults(Faults faults) {
  MutexLock lock(mutex_);
  faults_ = std::move(faults);
  messages_ = 0;
  calls_ = 0;
}

void InProcessConnection::Pause() {
  MutexLock lock(mutex_);
  paused_ = true;
}

void InProcessConnection::Resume() {
  MutexLock lock(mutex_);
  paused_ = false;
  changed_.NotifyAll();
}

int64_t InProcessConnection::messages() const {
  MutexLock lock(mutex_);
  return messages_;
}

int64_t InProcessConnection::calls() const {
  MutexLock lock(mutex_);
  return calls_;
}

InProcessConnection::Faults InProcessConnection::faults() const {
  MutexLock lock(mutex_);
  return faults_;
}

InProcessConnection::Verdict InProcessConnection::CountMessage(Deadline deadline) {
  MutexLock lock(mutex_);
  if (!changed_.WaitUntil(mutex_, deadline,
                          [this]() REQUIRES(mutex_) { return !paused_; })) {
    return Verdict::kStall;
  }
  const int64_t n = ++messages_;
  if (n == faults_.stall_at) return Verdict::kStall;
  const bool first = n == faults_.cut_at;
  const bool later = faults_.cut_every > 0 && n > faults_.cut_at &&
                     (n - faults_.cut_at) % faults_.cut_every == 0;
  if (!first && !later) return Verdict::kPass;
  return faults_.deliver_cut ? Verdict::kCutAfter : Verdict::kCutBefore;
}

void InProcessConnection::Forget(InProcessStream* stream) {
  MutexLock lock(mutex_);
  streams_.erase(stream);
}

absl::StatusOr<std::string> InProcessConnection::Call(std::string_view method,
                                                      std::string request, Deadline) {
  server::Service* service = nullptr;
  bool lose_answer = false;
  {
    MutexLock lock(mutex_);
    lose_answer = ++calls_ == faults_.lose_answer_at;
    service = service_;
    if (service == nullptr) return absl::UnavailableError("the server is away");
    ++active_calls_;
  }
  absl::StatusOr<std::string> answer = service->Call(View(method), request);
  MutexLock lock(mutex_);
  --active_calls_;
  changed_.NotifyAll();
  if (lose_answer) return Cut();
  return answer;
}

absl::StatusOr<std::unique_ptr<Stream>> InProcessConnection::Open(std::string_view method,
                                                                  int, Deadline) {
  MutexLock lock(mutex_);
  if (service_ == nullptr) return absl::UnavailableError("the server is away");
  const auto kind = service_->Find(View(method));
  if (!kind.has_value() || *kind == server::MethodKind::kUnary) {
    return absl::UnimplementedError(absl::StrCat(View(method), " is no stream"));
  }
  auto stream = std::make_unique<InProcessStream>(this, service_, *kind, method);
  streams_.insert(stream.get());
  return std::unique_ptr<Stream>(std::move(stream));
}

}  // namespace modelstore::internal
