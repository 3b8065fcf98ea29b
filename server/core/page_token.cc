#include "server/core/page_token.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "proto/contract/errors.h"

namespace modelstore::server {
namespace {

// Length of the checksum: a token of another list passes with probability 2^-48.
constexpr size_t kCheckBytes = 6;
constexpr size_t kLongestToken = 4096;

// The length of `scope` is part of the content, so that no other scope and position have
// the same concatenation.
std::string Check(absl::string_view scope, absl::string_view position) {
  const Digest digest = ComputeDigest(DigestAlgorithm::kXxh3_128,
                                      absl::StrCat(scope.size(), ":", scope, position));
  return std::string(digest.bytes().substr(0, kCheckBytes));
}

}  // namespace

std::string MakePageToken(absl::string_view scope, absl::string_view position) {
  if (position.empty()) return "";
  return absl::WebSafeBase64Escape(absl::StrCat(Check(scope, position), position));
}

absl::StatusOr<std::string> ReadPageToken(absl::string_view scope,
                                          absl::string_view token) {
  if (token.empty()) return "";
  std::string bytes;
  if (token.size() <= kLongestToken && absl::WebSafeBase64Unescape(token, &bytes) &&
      bytes.size() > kCheckBytes) {
    const absl::string_view view(bytes);
    const absl::string_view position = view.substr(kCheckBytes);
    if (view.substr(0, kCheckBytes) == Check(scope, position)) {
      return std::string(position);
    }
  }
  return InvalidField("page_token",
                      "not a next_page_token of this list: leave it empty to begin, "
                      "and repeat the other fields unchanged");
}

absl::StatusOr<int> PageSize(int64_t requested, int otherwise, int largest) {
  if (requested < 0) return InvalidField("page_size", "must not be negative");
  if (requested == 0) return otherwise;
  return static_cast<int>(std::min<int64_t>(requested, largest));
}

}  // namespace modelstore::server
