// Long-running calls of ModelStore: the server streams progress, parts of the answer and
// finally one result.
//
//   return RunOperation<v1::CollectGarbageResponse, CollectResult>(
//       *connection, "CollectGarbage", request, deadline,
//       [](const v1::CollectGarbageResponse& response, CollectResult& answer) {
//         if (response.has_result()) answer = ToCollectResult(response.result());
//       });
//
// An operation may run until `deadline`. The server reports progress every second, so an
// attempt ends early only if nothing arrives for ConnectOptions.stall_timeout. A broken
// attempt is repeated from the start, so the operation must be idempotent. RetryState
// limits the repetitions.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/internal/retry.h"
#include "client/internal/rpc.h"
#include "modelstore/connection.h"
#include "proto/contract/message_codec.h"

namespace modelstore::internal {

// One attempt: sends `request` and passes every message to `take`, which returns true for
// the result. OK after the result, whatever the status of the stream.
absl::Status AttemptOperation(
    Connection& connection, const std::string& method, const std::string& request,
    RetryState& retry,
    const std::function<absl::StatusOr<bool>(const std::string&)>& take);

// Calls `take(response, answer)` for every message. Each attempt starts with an empty
// Answer; returns that of the attempt which received the result. DEADLINE_EXCEEDED after
// `deadline`; the server's work is then cancelled.
template <typename Response, typename Answer, typename Take>
absl::StatusOr<Answer> RunOperation(Connection& connection, std::string_view method,
                                    const google::protobuf::Message& request,
                                    Deadline deadline, const Take& take,
                                    Sleeper sleeper = DefaultSleeper()) {
  if (absl::Status s = CheckStrings(request); !s.ok()) return s;
  const std::string full = std::string(kModelStore) + std::string(method);
  const std::string bytes = SerializeDeterministic(request);
  RetryState retry(RetryPolicy::Of(connection.options()), deadline, std::move(sleeper));
  while (true) {
    Answer answer;
    const absl::Status status = AttemptOperation(
        connection, full, bytes, retry,
        [&](const std::string& message) -> absl::StatusOr<bool> {
          Response response;
          if (!ParseMessage(message, &response)) {
            return absl::InternalError(full + ": the answer is malformed");
          }
          take(response, answer);
          return response.has_result();
        });
    if (status.ok()) return answer;
    if (absl::Status final = retry.OnFailure(status); !final.ok()) return final;
  }
}

}  // namespace modelstore::internal
