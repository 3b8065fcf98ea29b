// Page tokens: an opaque position in a list, checked when it comes back.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace modelstore::server {

// `scope` is everything else about the list (RPC, parent, filters): a token is
// refused by any other list. An empty position makes an empty token.
std::string MakePageToken(absl::string_view scope, absl::string_view position);

// The position; empty for an empty token. INVALID_ARGUMENT naming `page_token`
// for a token that was not made for this scope.
absl::StatusOr<std::string> ReadPageToken(absl::string_view scope,
                                          absl::string_view token);

// `requested` if positive, `otherwise` if 0, never above `largest`;
// INVALID_ARGUMENT naming `page_size` if negative.
absl::StatusOr<int> PageSize(int64_t requested, int otherwise, int largest);

}  // namespace modelstore::server
