// What a status of this library tells, for people and for programs:
//
//   if (!result.ok()) {
//     std::cerr << modelstore::StatusLine(result.status()) << "\n";
//     if (modelstore::ReasonOf(result.status()) == "HELD") { ... }
//   }
//
// absl::Status itself prints its details as escaped bytes.
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"

namespace modelstore {

// One line of text: `{CODE}: {message} [{REASON}, {key}={value}, ...]`, such as
//
//   ABORTED: models/iris: the latest version is 4, expected was 3 [LOST_RACE]
//
// Leaves out a reason that only repeats the code, and metadata that are empty or that
// the message contains. Replaces control characters by spaces. `OK` for an OK status.
std::string StatusLine(const absl::Status& status);

// The reason that the server or this library gave: the name of a value of
// modelstore.v1.ErrorReason (proto/modelstore/v1/errors.proto) without ERROR_REASON_,
// such as `HELD`, `LOST_RACE`, `REQUEST_ID_REUSED`. Newer servers may add names. Empty
// without one.
std::string ReasonOf(const absl::Status& status);

// The metadata of the reason, by the keys that errors.proto lists with it, such as
// `field` of INVALID_FIELD, `aliases` of HELD. Empty without a reason.
std::map<std::string, std::string> ErrorMetadataOf(const absl::Status& status);

}  // namespace modelstore
