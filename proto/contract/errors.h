// Makes statuses with google.rpc details as payloads, so that every room words
// its refusals alike and the wire carries the field or resource they are about.
// Messages: lower case; what, which resource, what to do.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "modelstore/v1/errors.pb.h"

namespace modelstore {

// The closed list of reasons, part of the API. It gives each reason's metadata.
using ErrorReason = v1::ErrorReason;
using enum v1::ErrorReason;
using ErrorMetadata = std::initializer_list<std::pair<absl::string_view, std::string>>;

// The one status code of a reason.
absl::StatusCode CodeOf(ErrorReason reason);
// Its name in google.rpc.ErrorInfo, which lacks ERROR_REASON_: `NOT_FOUND`. Empty for a
// number that is not in the list.
absl::string_view ReasonName(ErrorReason reason);

// The reason's code, with google.rpc.ErrorInfo.
absl::Status MakeError(ErrorReason reason, absl::string_view message,
                       ErrorMetadata metadata = {});
// The same status with this ErrorInfo instead of its own. The reason's code must be
// the status's.
absl::Status WithReason(absl::Status status, ErrorReason reason,
                        ErrorMetadata metadata = {});
// The same status, with the reason that bears the name of its code where it has none.
// OK stays OK.
absl::Status EnsureReason(absl::Status status);

// What google.rpc.ErrorInfo of the domain `modelstore` tells; absent without one.
struct ErrorDetail {
  // A name of the list, or one that a newer server has added.
  std::string reason;
  std::map<std::string, std::string> metadata;
};
std::optional<ErrorDetail> ErrorDetailOf(const absl::Status& status);

// INVALID_FIELD with google.rpc.BadRequest naming `field`, a path such as
// `manifest.tensors[3].shape`. The message is `{field}: {message}`.
absl::Status InvalidField(absl::string_view field, absl::string_view message);

// NOT_FOUND, ALREADY_EXISTS with google.rpc.ResourceInfo. `name` is the canonical
// resource name. The messages are `{type} {name} does not exist` / `already exists`.
absl::Status DoesNotExist(absl::string_view type, absl::string_view name);
absl::Status AlreadyExists(absl::string_view type, absl::string_view name);

// UNAVAILABLE with google.rpc.RetryInfo.
absl::Status Unavailable(absl::string_view message, int retry_after_ms);

// OVERLOADED, with google.rpc.RetryInfo: a limit that passes by itself (streams,
// requests that wait, memory of running calls, open uploads). What does not pass without
// somebody's help (a full disk, a request beyond a limit) is RESOURCE_EXHAUSTED.
absl::Status Overloaded(absl::string_view message, int retry_after_ms = 1000);
bool IsOverloaded(const absl::Status& status);

// How long the server asks to wait, from google.rpc.RetryInfo; absent without one.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// SHUTTING_DOWN, with google.rpc.RetryInfo.
absl::Status ShuttingDown();

// OVER_LIMIT of what waiting does not lift. `limit` is its name in the list of reasons.
absl::Status OverLimit(absl::string_view limit, int64_t maximum,
                       absl::string_view message);

// STALE_ETAG: `{name}: the etag differs: read it again`, and UPLOAD_COMMITTED.
absl::Status StaleEtag(absl::string_view name);
absl::Status UploadCommitted(absl::string_view name, int64_t version);

// ANSWER_TOO_LARGE: `{name} exceeds the 4 MiB of an answer: {remedy}`.
absl::Status AnswerTooLarge(absl::string_view name, absl::string_view remedy);

// REQUEST_ID_REUSED with google.rpc.BadRequest naming `request_id`:
// `request_id: {request_id} was used with {what}`.
absl::Status RequestIdReused(absl::string_view request_id, absl::string_view what);

// LOST_RACE of a model or alias. Version 0 is none.
absl::Status LostRace(absl::string_view resource, int64_t expected, int64_t actual,
                      absl::string_view message);
// LOST_RACE: `{model}: the latest version is {actual}, expected was {expected}`.
absl::Status LatestVersionDiffers(absl::string_view model, int64_t expected,
                                  int64_t actual);

// DATA_DAMAGED with google.rpc.ResourceInfo: `{type} {name}: {what}`.
absl::Status DataDamaged(absl::string_view type, absl::string_view name,
                         absl::string_view what);
// The same of a tensor: `tensor {section:key} of {checkpoint}: {what}`.
absl::Status TensorDataLoss(absl::string_view checkpoint, absl::string_view tensor,
                            absl::string_view what);

// Same code and payloads, message `{context}: {message}`. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);
// The same with the message `{message}; {addition}`.
absl::Status AppendTo(const absl::Status& status, absl::string_view addition);

}  // namespace modelstore
