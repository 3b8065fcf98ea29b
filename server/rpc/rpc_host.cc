#include "server/rpc/rpc_host.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "proto/contract/errors.h"
#include "proto/contract/steady_time.h"

namespace modelstore::server {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(500);
constexpr char kRequestIdHeader[] = "x-request-id";
constexpr size_t kMaxRequestIdBytes = 64;

std::string NewRequestId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return absl::StrFormat("%016x", random());
}

// The id from the client's metadata if it is short printable ASCII, else a random one:
// it is written to the log.
std::string RequestId(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  auto given = metadata.find(kRequestIdHeader);
  if (given != metadata.end() && given->second.size() > 0 &&
      given->second.size() <= kMaxRequestIdBytes &&
      std::all_of(given->second.begin(), given->second.end(), absl::ascii_isgraph)) {
    return std::string(given->second.data(), given->second.size());
  }
  return NewRequestId();
}

}  // namespace

absl::Status ClientDisconnected() { return absl::CancelledError("the client has left"); }

StreamWatch::StreamWatch(absl::Duration idle_timeout, absl::Duration stall_timeout,
                         std::function<bool()> contended)
    : idle_timeout_(idle_timeout),
      stall_timeout_(stall_timeout),
      contended_(std::move(contended)),
      thread_([this] { Watch(); }) {}

StreamWatch::~StreamWatch() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void StreamWatch::Add(WatchedStream* stream) {
  MutexLock lock(mutex_);
  streams_.insert(stream);
}

void StreamWatch::Remove(WatchedStream* stream) {
  MutexLock lock(mutex_);
  streams_.erase(stream);
}

void StreamWatch::Watch() {
  MutexLock lock(mutex_);
  const absl::Duration tick =
      std::min(kTick, std::min(idle_timeout_, stall_timeout_) / 4);
  while (!changed_.WaitFor(
      mutex_, tick, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_; })) {
    const absl::Time now = SteadyNow();
    // A client that does not read gets the idle timeout, or the shorter stall timeout
    // while other streams wait for the bytes that it holds.
    const absl::Time stalled_since = contended_()
                                         ? now - std::min(stall_timeout_, idle_timeout_)
                                         : now - idle_timeout_;
    // Under the lock, so that Remove() waits for a running OnTick().
    for (WatchedStream* stream : streams_) {
      stream->OnTick(now - idle_timeout_, stalled_since);
    }
  }
}

absl::Status RpcHost::Admit() const {
  return draining ? ShuttingDown() : absl::OkStatus();
}

absl::Status RpcHost::AdmitStream() const {
  if (auto status = Admit(); !status.ok()) return status;
  // The caller's own stream is already counted.
  if (streams <= max_streams) return absl::OkStatus();
  return Overloaded(absl::StrFormat(
      "limit of %d open streams (--max-streams) reached: retry later", max_streams));
}

absl::Status RpcHost::AdmitWatcher() const {
  if (auto status = Admit(); !status.ok()) return status;
  if (watchers <= max_watchers) return absl::OkStatus();
  return Overloaded(absl::StrFormat(
      "limit of %d open WatchModel streams (--max-watchers) reached: retry later",
      max_watchers));
}

RpcRecord::RpcRecord(const RpcHost* host, const std::string& method,
                     grpc::CallbackServerContext* context)
    : host_(host),
      method_(method),
      peer_(context->peer()),
      request_id_(RequestId(*context)),
      start_(SteadyNow()) {
  context->AddTrailingMetadata(kRequestIdHeader, request_id_);
}

void RpcRecord::End() {
  const absl::StatusCode code = status_.code();
  // UNAVAILABLE without an overload means that storage may be closed after a fault.
  if (code == absl::StatusCode::kUnavailable && !IsOverloaded(status_) &&
      host_->on_unavailable) {
    host_->on_unavailable();
  }
  const bool fault = code == absl::StatusCode::kInternal ||
                     code == absl::StatusCode::kDataLoss ||
                     code == absl::StatusCode::kUnknown;
  const LogLevel level = fault          ? LogLevel::kError
                         : status_.ok() ? LogLevel::kInfo
                                        : LogLevel::kWarning;
  if (!host_->log->Enabled(level)) return;
  const double ms = absl::ToDoubleMilliseconds(SteadyNow() - start_);
  const LogField fields[] = {{"method", method_},
                             {"request_id", request_id_},
                             {"peer", peer_},
                             {"code", absl::StatusCodeToString(code)},
                             {"ms", std::round(ms * 10) / 10},
                             {"received_bytes", received_.load()},
                             {"sent_bytes", sent_.load()},
                             {"message", status_.message()}};
  host_->log->Write(level, "rpc",
                    absl::MakeConstSpan(fields, std::size(fields) - status_.ok()));
}

}  // namespace modelstore::server
