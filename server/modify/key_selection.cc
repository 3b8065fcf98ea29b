#include "server/modify/key_selection.h"

#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/names.h"
#include "server/core/pattern.h"

namespace modelstore::server::modify {
namespace {

// Bounds the time: each pattern is matched against each key.
constexpr int kMaxPatterns = 256;

}  // namespace

absl::StatusOr<std::string> SectionOf(const std::string& section,
                                      const EditContext& context) {
  if (section.empty()) return std::string("model");
  if (auto s = ValidateSectionId(context.Field("section"), section); !s.ok()) return s;
  if (context.checkpoint.HasSection(section)) return section;
  return context.Missing("section", "section", section);
}

absl::StatusOr<std::vector<size_t>> SelectKeys(absl::string_view section,
                                               const Strings& keys,
                                               const Strings& patterns,
                                               const EditContext& context) {
  if (patterns.size() > kMaxPatterns) {
    return context.Invalid("patterns", absl::StrCat("at most ", kMaxPatterns));
  }
  std::vector<std::unique_ptr<RE2>> compiled;
  for (int p = 0; p < patterns.size(); ++p) {
    auto regex =
        CompilePattern(context.Field(absl::StrCat("patterns[", p, "]")), patterns[p]);
    if (!regex.ok()) return regex.status();
    compiled.push_back(*std::move(regex));
  }
  // One pass over the table finds the tensors, in its order, and marks each key and
  // pattern that has matched.
  std::vector<size_t> selected;
  std::vector<bool> matched(compiled.size(), false);
  absl::flat_hash_map<absl::string_view, bool> found;
  for (const std::string& key : keys) found.emplace(key, false);
  const auto& tensors = context.checkpoint.tensors();
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].section != section) continue;
    if (auto s = context.resources.CheckCancelled(); !s.ok()) return s;
    bool any = compiled.empty() && found.empty();
    if (const auto key = found.find(tensors[t].key); key != found.end()) {
      key->second = true;
      any = true;
    }
    for (size_t p = 0; p < compiled.size(); ++p) {
      if (!RE2::FullMatch(tensors[t].key, *compiled[p])) continue;
      matched[p] = true;
      any = true;
    }
    if (any) selected.push_back(t);
  }
  for (int k = 0; k < keys.size(); ++k) {
    if (found[keys[k]]) continue;
    return context.Missing(absl::StrCat("keys[", k, "]"), "tensor",
                           TensorNameOf(section, keys[k]));
  }
  for (size_t p = 0; p < compiled.size(); ++p) {
    if (matched[p]) continue;
    return context.Missing(absl::StrCat("patterns[", p, "]"), "key of pattern",
                           TensorNameOf(section, patterns[static_cast<int>(p)]));
  }
  return selected;
}

}  // namespace modelstore::server::modify
