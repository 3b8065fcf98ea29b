// References to tensors in a section's tree of values.
#pragma once

#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore::server::modify {

// Returns the new key of a tensor, or nothing if the tensor was removed.
using KeyChange = absl::FunctionRef<std::optional<std::string>(const std::string& key)>;

// Replaces each reference to a tensor in `value` by its new key. A reference to a removed
// tensor is removed with what depends on it: the entry of a dict, the attribute, or the
// object that is made from it, such as a numpy array. An element of a list or tuple
// becomes None instead, and so does `value` itself. Returns whether anything has changed.
bool ChangeReferences(v1::Value* value, KeyChange change);

}  // namespace modelstore::server::modify
