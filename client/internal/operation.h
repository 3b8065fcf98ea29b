// Operations of ModelStore: calls that answer with a stream of progress, parts of the
// answer and, at its end, one result.
//
//   return RunOperation<v1::CollectGarbageResponse, CollectResult>(
//       *connection, "CollectGarbage", request, deadline,
//       [](const v1::CollectGarbageResponse& response, CollectResult& answer) {
//         if (response.has_result()) answer = ToCollectResult(response.result());
//       });
//
// An operation may take until `deadline`, however long that is: what ends an attempt
// early is a silence of ConnectOptions.stall_timeout, since the server tells its progress
// every second. An attempt that is cut is repeated from the start, so that the operation
// must be safe to repeat; RetryState tells for how long.
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

// One attempt: sends `request` and hands every message to `take`, which returns true for
// the result. Returns OK once the result is taken, whatever becomes of the stream then.
absl::Status AttemptOperation(
    Connection& connection, const std::string& method, const std::string& request,
    RetryState& retry,
    const std::function<absl::StatusOr<bool>(const std::string&)>& take);

// Calls `take(response, answer)` for every message of an attempt, which begins with an
// empty Answer, and returns that of the attempt that came to its result.
// DEADLINE_EXCEEDED once `deadline` has passed; the server's work is cancelled then.
template <typename Response, typename Answer, typename Take>
absl::StatusOr<Answer> RunOperation(Connection& connection, std::string_view method,
                                    const google::protobuf::Message& request,
                                    Deadline deadline, const Take& take,
                                    Sleeper sleeper = RealSleeper()) {
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
