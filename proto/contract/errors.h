// Makes statuses with google.rpc details as payloads, so that every room words
// its refusals alike and the wire carries the field or resource they are about.
// Messages: lower case; what, which resource, what to do.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace modelstore {

// INVALID_ARGUMENT with google.rpc.BadRequest naming `field`, a path such as
// `manifest.tensors[3].shape`. The message is `{field}: {message}`.
absl::Status InvalidField(absl::string_view field, absl::string_view message);

// With google.rpc.ResourceInfo. `name` is the canonical resource name. The
// messages are `{type} {name} does not exist` / `already exists`.
absl::Status NoSuch(absl::string_view type, absl::string_view name);
absl::Status AlreadyExists(absl::string_view type, absl::string_view name);

// UNAVAILABLE with google.rpc.RetryInfo.
absl::Status Unavailable(absl::string_view message, int retry_after_ms);

// The same for a limit that passes by itself (streams, requests that wait, memory of
// running calls, open uploads), with google.rpc.ErrorInfo of reason `OVERLOADED` too.
// What does not pass without somebody's help (a full disk, a request beyond a limit)
// is RESOURCE_EXHAUSTED.
absl::Status Overloaded(absl::string_view message, int retry_after_ms = 1000);
bool IsOverloaded(const absl::Status& status);

// How long the server asks to wait, from google.rpc.RetryInfo; absent without one.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// DATA_LOSS with google.rpc.ResourceInfo naming the tensor:
// `tensor {section:key} of {checkpoint}: {what}`.
absl::Status TensorDataLoss(absl::string_view checkpoint, absl::string_view tensor,
                            absl::string_view what);

// Same code and payloads, message `{context}: {message}`. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);
// The same with the message `{message}; {addition}`.
absl::Status AppendTo(const absl::Status& status, absl::string_view addition);

}  // namespace modelstore
