// Which tensors of one section an edit is about.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "server/modify/edits.h"

namespace modelstore::server::modify {

using Strings = google::protobuf::RepeatedPtrField<std::string>;

// `model` unless given. NOT_FOUND at `section` if there is none.
absl::StatusOr<std::string> SectionOf(const std::string& section,
                                      const EditContext& context);

// Positions, ascending, of the tensors whose whole key one of the patterns
// matches; all of the section without patterns. NOT_FOUND at `{field}[i]` for a
// pattern that matches none.
absl::StatusOr<std::vector<size_t>> SelectKeys(absl::string_view section,
                                               absl::string_view field,
                                               const Strings& patterns,
                                               const EditContext& context);

}  // namespace modelstore::server::modify
