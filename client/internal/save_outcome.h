// What a save knows of the version that it makes, and what its caller is told of it when
// the save fails.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace modelstore::internal {

struct SaveOutcome {
  enum class Commit {
    kNone,
    kSent,           // and not answered
    kLeftToWorker0,  // this worker's part is delivered
    kFound,          // `version` has the request_id, and was not compared with this save
    kMade,           // `version` holds this save
  };
  Commit commit = Commit::kNone;
  int64_t version = 0;
  std::string request_id;
  bool request_id_is_the_callers = false;
  // Some of the content is in an upload.
  bool uploaded = false;

  // `failure`, or CANCELLED, with what became of the version where the save was cut off
  // or its commit is not decided; any other failure as it is.
  absl::Status Explain(const absl::Status& failure, bool cancelled) const;

 private:
  std::string Describe() const;
};

}  // namespace modelstore::internal
