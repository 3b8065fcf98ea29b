// Which tensors of one section an edit is about.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

using Strings = google::protobuf::RepeatedPtrField<std::string>;

// `model` unless given. NOT_FOUND at `section` if there is none.
absl::StatusOr<std::string> SectionOf(const std::string& section,
                                      const EditContext& context);

// Positions, ascending, of the tensors whose whole key is one of `keys` or matches one
// of the patterns; all of the section if both are empty. NOT_FOUND at `keys[i]` or
// `patterns[i]` for one that no tensor has or matches.
absl::StatusOr<std::vector<size_t>> SelectKeys(absl::string_view section,
                                               const Strings& keys,
                                               const Strings& patterns,
                                               const EditContext& context);

}  // namespace modelstore::server::modify
