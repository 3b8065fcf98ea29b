// Selection of the tensors of a section that an edit applies to.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

using Strings = google::protobuf::RepeatedPtrField<std::string>;

// Returns `section`, or `model` if it is empty. NOT_FOUND at field `section` if the
// checkpoint has no such section.
absl::StatusOr<std::string> SectionOf(const std::string& section,
                                      const EditContext& context);

// Returns the positions, ascending, of the tensors whose key is in `keys` or matches one
// of the patterns as a whole; all tensors of the section if both lists are empty.
// NOT_FOUND at `keys[i]` or `patterns[i]` if no tensor matches it, so that a misspelled
// key is an error. INVALID_ARGUMENT for a malformed pattern or too many of them.
absl::StatusOr<std::vector<size_t>> SelectKeys(absl::string_view section,
                                               const Strings& keys,
                                               const Strings& patterns,
                                               const EditContext& context);

}  // namespace modelstore::server::modify
