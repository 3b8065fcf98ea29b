#include "modelstore/errors.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"

namespace modelstore {

std::string StatusLine(const absl::Status& status) {
  const std::string code = absl::StatusCodeToString(status.code());
  if (status.ok()) return code;
  std::vector<std::string> details;
  const std::string reason = ReasonOf(status);
  if (!reason.empty() && reason != code) details.push_back(reason);
  for (const auto& [key, value] : ErrorMetadataOf(status)) {
    if (value.empty() || absl::StrContains(status.message(), value)) continue;
    details.push_back(absl::StrCat(key, "=", value));
  }
  std::string line = absl::StrCat(code, ": ", status.message());
  if (!details.empty()) absl::StrAppend(&line, " [", absl::StrJoin(details, ", "), "]");
  std::replace_if(line.begin(), line.end(), absl::ascii_iscntrl, ' ');
  return line;
}

std::string ReasonOf(const absl::Status& status) {
  auto detail = ErrorDetailOf(status);
  return detail.has_value() ? std::move(detail->reason) : std::string();
}

std::map<std::string, std::string> ErrorMetadataOf(const absl::Status& status) {
  auto detail = ErrorDetailOf(status);
  if (!detail.has_value()) return {};
  return std::move(detail->metadata);
}

}  // namespace modelstore
