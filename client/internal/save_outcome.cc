#include "client/internal/save_outcome.h"

#include "absl/strings/str_cat.h"
#include "client/internal/retry.h"
#include "proto/contract/errors.h"

namespace modelstore::internal {

std::string SaveOutcome::Describe() const {
  switch (commit) {
    case Commit::kDelegatedToWorker0:
      return "this worker's part is delivered; worker 0 may still commit it";
    case Commit::kSent:
      return request_id_is_the_callers
                 ? absl::StrCat(
                       "the commit was sent and may have succeeded: save again with "
                       "request_id \"",
                       request_id, "\" to find out")
                 : absl::StrCat(
                       "the commit was sent and may have succeeded: look for "
                       "request_id \"",
                       request_id, "\" in the latest version");
    case Commit::kFound:
      return absl::StrCat("version ", version,
                          " exists with this request_id but could not be compared");
    case Commit::kMade:
      return absl::StrCat("version ", version, " contains this save");
    case Commit::kNone:
      break;
  }
  return request_id_is_the_callers && uploaded
             ? "nothing was saved; a save with the same request_id resumes the upload"
             : "nothing was saved";
}

absl::Status SaveOutcome::Explain(const absl::Status& failure, bool cancelled) const {
  if (cancelled) {
    return AppendTo(absl::CancelledError("the save was cancelled"), Describe());
  }
  const bool tells = IsTransient(failure) || commit == Commit::kSent;
  return tells ? AppendTo(failure, Describe()) : failure;
}

}  // namespace modelstore::internal
