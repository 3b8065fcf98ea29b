// Equality of values as Python has it for keys of dicts and elements of sets.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

// Returns a text that is the same for two values exactly if Python holds them equal
// and so keeps only one of them in a dict or set: 1, 1.0, True and 1+0j are equal; a
// torch.Size equals the tuple of its sizes. Empty for a value that equals no other
// one, such as NaN. INVALID_ARGUMENT for what cannot be hashed, with its name as the
// message: `a list`. Of objects, whose equality is their class's own, those are the
// same that are written alike.
absl::StatusOr<std::string> HashIdentity(const v1::Value& value);

}  // namespace modelstore
