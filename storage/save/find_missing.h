// Finds the missing ones of concatenated digests.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "storage/status_macros.h"

namespace modelstore::storage {

// Returns the positions of the digests for which `holds` returns false, ascending.
// INVALID_ARGUMENT if `digests` is not a multiple of a digest's length or has too many.
inline absl::StatusOr<std::vector<uint32_t>> FindMissingDigests(
    DigestAlgorithm algorithm, absl::string_view digests,
    absl::FunctionRef<bool(const Digest&)> holds) {
  const size_t length = DigestLength(algorithm);
  if (digests.size() % length != 0) {
    return InvalidField("digests", absl::StrCat("must be digests of ", length, " bytes"));
  }
  const size_t count = digests.size() / length;
  if (count > static_cast<size_t>(kMaxDigestsPerCall)) {
    return InvalidField("digests", absl::StrCat("are over ", kMaxDigestsPerCall));
  }
  std::vector<uint32_t> missing;
  for (size_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const Digest digest,
                     Digest::FromBytes(algorithm, digests.substr(i * length, length)));
    if (!holds(digest)) missing.push_back(static_cast<uint32_t>(i));
  }
  return missing;
}

}  // namespace modelstore::storage
