// Page tokens: an opaque position in a list, with a checksum that detects tokens of
// another list. The checksum is not a signature: a client can forge it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace modelstore::server {

// Makes a token for `position`, which is storage's own. `scope` identifies the list: the
// RPC, parent and filters. An empty position, the end of the list, makes an empty token.
std::string MakePageToken(absl::string_view scope, absl::string_view position);

// Returns the position; empty for an empty token. INVALID_ARGUMENT naming `page_token`
// if the token was made for another scope.
absl::StatusOr<std::string> ReadPageToken(absl::string_view scope,
                                          absl::string_view token);

// Returns `requested` if it is positive, `otherwise` if it is 0, and never more than
// `largest`. INVALID_ARGUMENT naming `page_size` if it is negative.
absl::StatusOr<int> PageSize(int64_t requested, int otherwise, int largest);

}  // namespace modelstore::server
