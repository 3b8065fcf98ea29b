// Rules for keys of section `model`: renames from stored keys, and key patterns.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/torch.h"
#include "re2/re2.h"

namespace modelstore::torch_internal {

// The renames of LoadArgs: strip a prefix, add a prefix, then the first matching rule.
// Copies share the compiled patterns.
class KeyRenames {
 public:
  // INVALID_ARGUMENT, with the field, for a pattern or replacement that RE2 does not
  // accept.
  static absl::StatusOr<KeyRenames> Make(const LoadArgs& args);

  bool empty() const { return strip_.empty() && add_.empty() && rules_.empty(); }
  // FAILED_PRECONDITION if the key lacks the prefix to strip.
  absl::StatusOr<std::string> Apply(const std::string& stored) const;
  // Renames all keys, in order. FAILED_PRECONDITION, naming both, if two get the same
  // key.
  absl::StatusOr<std::vector<std::string>> ApplyAll(
      const std::vector<std::string>& stored) const;

 private:
  struct Rule {
    std::shared_ptr<const RE2> pattern;
    std::string replacement;
  };
  std::string strip_;
  std::string add_;
  std::vector<Rule> rules_;
};

// RE2 patterns that match whole keys.
class KeyPatterns {
 public:
  // INVALID_ARGUMENT, with `field` and index, for a pattern that does not compile.
  static absl::StatusOr<KeyPatterns> Make(const char* field,
                                          const std::vector<std::string>& patterns);
  bool Match(const std::string& key) const { return First(key).has_value(); }
  // Returns the index of the first pattern that matches.
  std::optional<size_t> First(const std::string& key) const;

 private:
  std::vector<std::shared_ptr<const RE2>> patterns_;
};

}  // namespace modelstore::torch_internal
