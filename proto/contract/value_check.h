// Checks of value trees: what passes can be given back by a reader in Python.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

// A tensor that a tree names, and where it does first.
struct NamedTensor {
  std::string key;
  // Path of the value that names it, cut at 128 bytes.
  std::string place;
};

// Returns INVALID_ARGUMENT unless every value of the tree has a kind that can be
// given back: see modelstore.v1.Value for the rules. The message is
// `{field}: {what} {path}: {why}`, such as
// `manifest.sections[0].value: section "extra", value a/b/3: a list cannot be ...`.
// Appends the tensors that the tree names to `tensors`, each once and at most as many
// as a checkpoint may hold; null refuses any.
// Recursion stops at max_depth levels, with an error.
absl::Status CheckValue(absl::string_view field, absl::string_view what,
                        const v1::Value& value, int max_depth,
                        std::vector<NamedTensor>* tensors);

// The element of a tensor's path that stands for a key of a dict: a string is
// escaped, an integer is its decimal, any other key is `~:` and Python's repr(),
// escaped. The caller writes `~:` before an integer whose decimal is also a string
// key of the same dict.
std::string KeyElement(const v1::Value& key);

}  // namespace modelstore
