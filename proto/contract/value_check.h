// Checks that a reader in Python can reproduce a tree of values.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

// A tensor referenced by a tree, and the first place of the reference.
struct NamedTensor {
  std::string key;
  // Path of the referring value, truncated to 128 bytes.
  std::string place;
};

// INVALID_ARGUMENT unless Python can reproduce every value of the tree; the rules are in
// modelstore.v1.Value. The message is `{field}: {what} {path}: {why}`, such as
// `manifest.sections[0].value: section "extra", value a/b/3: a list cannot be ...`.
//
// Appends the tensors that the tree references to `tensors`, each once and at most as
// many as a checkpoint may have. If `tensors` is null, references are an error. More than
// `max_depth` levels are an error.
absl::Status CheckValue(absl::string_view field, absl::string_view what,
                        const v1::Value& value, int max_depth,
                        std::vector<NamedTensor>* tensors);

// The path element for a key of a dict: an escaped string, an integer in decimal, or `~:`
// and the escaped repr() of any other key. The caller adds `~:` before an integer if the
// dict also has its decimal as a string key.
std::string KeyElement(const v1::Value& key);

}  // namespace modelstore
