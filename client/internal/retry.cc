#include "client/internal/retry.h"

#include <random>
#include <string>
#include <thread>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "proto/contract/errors.h"

namespace modelstore::internal {
namespace {

constexpr int64_t kLongestBackoffMs = 2'000;

// What the server asked for in a google.rpc.RetryInfo; 0 if it did not.
int64_t RetryDelayMs(const absl::Status& status) {
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.RetryInfo");
  google::rpc::RetryInfo info;
  if (!payload.has_value() || !info.ParseFromString(std::string(*payload))) return 0;
  const int64_t ms =
      info.retry_delay().seconds() * 1000 + info.retry_delay().nanos() / 1'000'000;
  return std::clamp<int64_t>(ms, 0, 10'000);
}

int64_t Jittered(int64_t ms) {
  thread_local std::minstd_rand random(std::random_device{}());
  return std::uniform_int_distribution<int64_t>(ms / 2, ms)(random);
}

}  // namespace

Sleeper RealSleeper() {
  return [](std::chrono::milliseconds time) {
    std::this_thread::sleep_for(time);
    return true;
  };
}

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

std::chrono::milliseconds Backoff::Next(const absl::Status& reason) {
  const int64_t ms = std::max(Jittered(current_ms_), RetryDelayMs(reason));
  current_ms_ = std::min(current_ms_ * 2, kLongestBackoffMs);
  return std::chrono::milliseconds(ms);
}

void RetryState::OnProgress() {
  backoff_.Reset();
  give_up_ = After(policy_.retry_timeout);
}

absl::Status RetryState::OnFailure(const absl::Status& failure) {
  if (!IsTransient(failure)) return failure;
  const std::chrono::milliseconds wait = backoff_.Next(failure);
  if (After(wait) >= deadline_) {
    return absl::DeadlineExceededError(
        absl::StrCat("out of time; the last attempt: ", failure.message()));
  }
  if (After(wait) >= give_up_) {
    return Annotate(
        failure,
        absl::StrCat("given up after ", policy_.retry_timeout.count(), " ms of retries"));
  }
  if (!sleeper_(wait)) return absl::CancelledError("cancelled by the caller");
  return absl::OkStatus();
}

}  // namespace modelstore::internal
