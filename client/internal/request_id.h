// Generates a request_id if the caller gave none.
#pragma once

#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace modelstore::internal {

// `{what}-` and 32 random hex digits.
inline std::string NewRequestId(absl::string_view what) {
  std::random_device random;
  std::string id = absl::StrCat(what, "-");
  for (int i = 0; i < 4; ++i) absl::StrAppend(&id, absl::Hex(random(), absl::kZeroPad8));
  return id;
}

}  // namespace modelstore::internal
