// What a save knows about its version, and how a failed save describes it to the caller.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace modelstore::internal {

struct SaveOutcome {
  enum class Commit {
    kNone,
    kSent,                // sent, no answer yet
    kDelegatedToWorker0,  // this worker's part is delivered; worker 0 commits
    kFound,  // `version` has the request_id, but was not compared with this save
    kMade,   // `version` contains this save
  };
  Commit commit = Commit::kNone;
  int64_t version = 0;
  std::string request_id;
  bool request_id_is_the_callers = false;
  // Part of the content may be in an upload.
  bool uploaded = false;

  // Returns `failure`, or CANCELLED. Appends what is known about the version if the
  // failure is transient or the commit is undecided.
  absl::Status Explain(const absl::Status& failure, bool cancelled) const;

 private:
  std::string Describe() const;
};

}  // namespace modelstore::internal
