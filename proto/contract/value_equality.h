// Equality of values as in Python, for keys of dicts and elements of sets.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

// Returns a text that is equal for two values if and only if they are equal in Python, so
// that a dict or set keeps only one of them: 1, 1.0, True and 1+0j are equal; a
// torch.Size equals the tuple of its sizes. Empty for a value that equals no other, such
// as NaN. INVALID_ARGUMENT for unhashable values, with their type as the message: `a
// list`. The equality of objects depends on their class; here they are equal if their
// serialized form is.
absl::StatusOr<std::string> HashIdentity(const v1::Value& value);

}  // namespace modelstore
