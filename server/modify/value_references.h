// Tensors that a section's tree of values names.
#pragma once

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore::server::modify {

// What becomes of the key of a tensor; absent: the tensor is gone.
using KeyChange = absl::FunctionRef<std::optional<std::string>(const std::string& key)>;

// Puts the new key wherever `value` names a tensor. What names one that is gone goes
// too: an entry of a dict, an attribute, and an object that is made from it, such as a
// numpy array; an element of a list or tuple becomes None, and so does `value` itself.
// Returns whether anything changed.
bool ChangeReferences(v1::Value* value, KeyChange change);

}  // namespace modelstore::server::modify
