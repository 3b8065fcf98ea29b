#include "storage/catalog.h"

#include "absl/strings/cord.h"
#include "proto/contract/errors.h"

namespace modelstore::storage {
namespace {

// Internal mark: the status codec does not send it.
constexpr char kUndecidedUrl[] = "modelstore.storage/undecided";

}  // namespace

KeyRange PrefixRange(absl::string_view prefix) {
  KeyRange range;
  range.begin = std::string(prefix);
  range.end = range.begin;
  // The end is the prefix with its last byte incremented, after removing trailing 0xff
  // bytes. A prefix of 0xff bytes alone has no end.
  while (!range.end.empty() && static_cast<unsigned char>(range.end.back()) == 0xff) {
    range.end.pop_back();
  }
  if (!range.end.empty()) ++range.end.back();
  return range;
}

bool IsUndecided(const absl::Status& status) {
  return status.GetPayload(kUndecidedUrl).has_value();
}

absl::Status UndecidedError(absl::string_view message) {
  absl::Status status = MakeError(ERROR_REASON_OUTCOME_UNKNOWN, message);
  status.SetPayload(kUndecidedUrl, absl::Cord());
  return status;
}

}  // namespace modelstore::storage
