#include "client/internal/rpc.h"

namespace modelstore::internal {

Deadline CallDeadline(const Client& client, const std::optional<Deadline>& given) {
  if (given.has_value()) return *given;
  const auto connection = client.connection();
  // The call itself returns the error.
  if (!connection.ok()) return Deadline::max();
  const ConnectOptions& options = (*connection)->options();
  return Later(After(options.retry_timeout), options.stall_timeout);
}

absl::Status StreamError(Stream& stream, const absl::Status& seen, Deadline deadline) {
  if (absl::IsDeadlineExceeded(seen)) {
    stream.Cancel();
    return absl::UnavailableError("the stream made no progress and was cut");
  }
  absl::Status status = stream.Finish(deadline);
  if (status.ok()) return absl::UnavailableError("the server ended the stream early");
  if (absl::IsDeadlineExceeded(status)) stream.Cancel();
  return status;
}

absl::StatusOr<std::string> CloseAndReceive(Stream& stream, Deadline deadline) {
  absl::Status s = stream.WritesDone(deadline);
  if (!s.ok()) return StreamError(stream, s, deadline);
  absl::StatusOr<ReceivedMessage> message = stream.Read(deadline);
  if (!message.ok()) return StreamError(stream, message.status(), deadline);
  std::string response;
  for (const std::string_view fragment : message->fragments) response += fragment;
  s = stream.Finish(deadline);
  if (!s.ok()) return s;
  return response;
}

absl::Status SendRequest(Stream& stream, std::string request, Deadline deadline) {
  absl::Status s = stream.Write(std::move(request), {}, deadline);
  if (s.ok()) s = stream.WritesDone(deadline);
  return s.ok() ? s : StreamError(stream, s, deadline);
}

}  // namespace modelstore::internal
