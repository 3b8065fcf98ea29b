#include "client/internal/operation.h"

#include <chrono>
#include <memory>

namespace modelstore::internal {

absl::Status AttemptOperation(
    Connection& connection, const std::string& method, const std::string& request,
    RetryState& retry,
    const std::function<absl::StatusOr<bool>(const std::string&)>& take) {
  // Deadline of each step: a message arrives at least every second.
  const auto step = [&] { return retry.AttemptDeadline(); };
  auto stream = connection.Open(method, /*lane=*/0, step());
  if (!stream.ok()) return stream.status();
  if (absl::Status s = SendRequest(**stream, request, step()); !s.ok()) return s;
  int64_t messages = 0;
  while (true) {
    if (std::chrono::steady_clock::now() >= retry.deadline()) {
      (*stream)->Cancel();
      return absl::DeadlineExceededError("the operation did not finish in time");
    }
    auto message = (*stream)->Read(step());
    if (!message.ok()) return StreamError(**stream, message.status(), step());
    retry.OnMessage(++messages);
    std::string bytes;
    for (const std::string_view fragment : message->fragments) bytes += fragment;
    const absl::StatusOr<bool> done = take(bytes);
    if (!done.ok()) {
      (*stream)->Cancel();
      return done.status();
    }
    if (!*done) continue;
    // The result is here, so the status of the stream does not matter.
    (*stream)->Finish(step()).IgnoreError();
    return absl::OkStatus();
  }
}

}  // namespace modelstore::internal
