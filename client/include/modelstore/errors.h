// Access to the error details of a status, for messages and for decisions:
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
// Omits a reason that equals the code, and metadata that are empty or already in the
// message. Replaces control characters by spaces. Returns `OK` for an OK status.
std::string StatusLine(const absl::Status& status);

// Returns the reason of the error: the name of a value of modelstore.v1.ErrorReason
// (proto/modelstore/v1/errors.proto) without ERROR_REASON_, such as `HELD`, `LOST_RACE`,
// `REQUEST_ID_REUSED`. Empty if the status has none. Newer servers may add reasons.
std::string ReasonOf(const absl::Status& status);

// Returns the metadata of the reason, such as `field` of INVALID_FIELD or `aliases` of
// HELD. errors.proto lists the keys of each reason. Empty if the status has no reason.
std::map<std::string, std::string> ErrorMetadataOf(const absl::Status& status);

}  // namespace modelstore
