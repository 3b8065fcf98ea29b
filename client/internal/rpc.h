// Typed calls over a Connection, and helpers for its streams.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/internal/check_strings.h"
#include "client/internal/retry.h"
#include "google/protobuf/message.h"
#include "modelstore/client.h"
#include "modelstore/connection.h"
#include "proto/contract/message_codec.h"

namespace modelstore::internal {

inline constexpr std::string_view kModelStore = "/modelstore.v1.ModelStore/";
inline constexpr std::string_view kTransfer = "/modelstore.v1.CheckpointTransfer/";

// Limit for the head of a message with chunks. Valid heads are far smaller.
inline constexpr size_t kMaxHeadBytes = size_t{4} << 20;

// One attempt, without retries.
template <typename Response>
absl::StatusOr<Response> CallOnce(Connection& connection, const std::string& method,
                                  const std::string& request, Deadline deadline) {
  absl::StatusOr<std::string> bytes = connection.Call(method, request, deadline);
  if (!bytes.ok()) return bytes.status();
  Response response;
  if (!ParseMessage(*bytes, &response)) {
    return absl::InternalError(method + ": the answer is malformed");
  }
  return response;
}

// A unary call, repeated after transient failures if it is idempotent.
template <typename Response>
absl::StatusOr<Response> CallRpc(Connection& connection, std::string_view service,
                                 std::string_view method,
                                 const google::protobuf::Message& request,
                                 Idempotency idempotency, Deadline deadline,
                                 Sleeper sleeper = DefaultSleeper()) {
  if (absl::Status s = CheckStrings(request); !s.ok()) return s;
  const std::string full = std::string(service) + std::string(method);
  const std::string bytes = SerializeDeterministic(request);
  return Retry(RetryPolicy::Of(connection.options()), idempotency, deadline,
               std::move(sleeper), [&](Deadline attempt) {
                 return CallOnce<Response>(connection, full, bytes, attempt);
               });
}

// Deadline of a unary call of the public API: `given` in its options or, if absent, the
// retry timeout plus one stalled attempt. Computed once, when the call begins, also if it
// takes several calls to the server.
Deadline CallDeadline(const Client& client, const std::optional<Deadline>& given);

// The same for a transfer or an operation.
inline Deadline TransferDeadline(const std::optional<Deadline>& given) {
  return given.has_value() ? *given : After(std::chrono::hours(1));
}

// A call of ModelStore.
template <typename Response>
absl::StatusOr<Response> CallStore(const Client& client, std::string_view method,
                                   const google::protobuf::Message& request,
                                   Deadline deadline,
                                   Idempotency idempotency = Idempotency::kIdempotent) {
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  return CallRpc<Response>(**connection, kModelStore, method, request, idempotency,
                           deadline);
}

// A call that deletes a resource identified by a uid. If an earlier attempt's answer was
// lost, NOT_FOUND is OK: that attempt deleted it.
template <typename Response>
absl::Status CallDelete(const Client& client, std::string_view method,
                        const google::protobuf::Message& request, Deadline deadline,
                        std::string_view service = kModelStore) {
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  if (absl::Status s = CheckStrings(request); !s.ok()) return s;
  const std::string full = std::string(service) + std::string(method);
  const std::string bytes = SerializeDeterministic(request);
  bool repeated = false;
  return Retry(RetryPolicy::Of((*connection)->options()), Idempotency::kIdempotent,
               deadline, DefaultSleeper(), [&](Deadline attempt) -> absl::Status {
                 const absl::Status s =
                     CallOnce<Response>(**connection, full, bytes, attempt).status();
                 const bool done = repeated && absl::IsNotFound(s);
                 // A call refused because of overload had no effect.
                 repeated |= !IsOverloaded(s);
                 return done ? absl::OkStatus() : s;
               });
}

// Returns why a stream operation failed with `seen`. A stalled stream is cancelled;
// otherwise it is the status that the server sent. Never OK.
absl::Status StreamError(Stream& stream, const absl::Status& seen, Deadline deadline);

// Half-closes a client-streaming RPC and returns its one response.
absl::StatusOr<std::string> CloseAndReceive(Stream& stream, Deadline deadline);

// Sends the request of a server-streaming RPC. Its strings must have been checked.
absl::Status SendRequest(Stream& stream, std::string request, Deadline deadline);

}  // namespace modelstore::internal
