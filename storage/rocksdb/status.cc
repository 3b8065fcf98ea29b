#include "storage/rocksdb/status.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace modelstore::storage::rocks {
namespace {

absl::StatusCode CodeOf(const rocksdb::Status& status) {
  if (IsNoSpace(status)) return absl::StatusCode::kResourceExhausted;
  switch (status.code()) {
    case rocksdb::Status::kOk:
      return absl::StatusCode::kOk;
    case rocksdb::Status::kNotFound:
      return absl::StatusCode::kNotFound;
    case rocksdb::Status::kCorruption:
      return absl::StatusCode::kDataLoss;
    case rocksdb::Status::kIOError:
      return status.IsPathNotFound() ? absl::StatusCode::kNotFound
                                     : absl::StatusCode::kUnavailable;
    case rocksdb::Status::kIncomplete:
    case rocksdb::Status::kShutdownInProgress:
    case rocksdb::Status::kTimedOut:
    case rocksdb::Status::kAborted:
    case rocksdb::Status::kBusy:
    case rocksdb::Status::kTryAgain:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

bool IsNoSpace(const rocksdb::Status& status) {
  return status.subcode() == rocksdb::Status::kNoSpace ||
         status.subcode() == rocksdb::Status::kSpaceLimit;
}

absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(CodeOf(status), absl::StrCat(what, ": ", status.ToString()));
}

}  // namespace modelstore::storage::rocks
