#include "storage/rocksdb/status.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore::storage::rocks {
namespace {

constexpr absl::string_view kTooManyOpenFiles = "too many open files: ";

// Describes the descriptor limit that a call exceeded; empty if it exceeded none.
std::string DescriptorLimit(const rocksdb::Status& status) {
  if (FailedWith(status, ENFILE)) {
    return "the system limit (sysctl fs.file-max) is reached; raise it, or close files "
           "of "
           "other programs";
  }
  if (!FailedWith(status, EMFILE)) return "";
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return absl::StrCat("this process may open ", limit.rlim_cur,
                      " descriptors (RLIMIT_NOFILE, `ulimit -n`, systemd's LimitNOFILE); "
                      "raise the limit, or close connections");
}

absl::StatusCode CodeOf(const rocksdb::Status& status) {
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

bool IsTooManyOpenFiles(const absl::Status& status) {
  return absl::IsResourceExhausted(status) &&
         absl::StrContains(status.message(), kTooManyOpenFiles);
}

bool FailedWith(const rocksdb::Status& status, int error) {
  return status.IsIOError() && absl::StrContains(status.ToString(), std::strerror(error));
}

absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string limit = DescriptorLimit(status);
  if (!limit.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": ", kTooManyOpenFiles, limit, ": ", status.ToString()));
  }
  const std::string message = absl::StrCat(what, ": ", status.ToString());
  if (IsNoSpace(status)) return MakeError(ERROR_REASON_DISK_FULL, message);
  return absl::Status(CodeOf(status), message);
}

}  // namespace modelstore::storage::rocks
