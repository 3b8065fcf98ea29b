// What the caller says about keys of section `model`: under which name a stored one
// is known here, and which buffers are no part of the state.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/torch.h"
#include "re2/re2.h"

namespace modelstore::torch_internal {

// From stored names to those of here. Copies share the compiled patterns.
class KeyRenames {
 public:
  // INVALID_ARGUMENT, naming the field, for a pattern or a replacement that RE2 does
  // not take.
  static absl::StatusOr<KeyRenames> Make(const LoadArgs& args);

  bool empty() const { return strip_.empty() && add_.empty() && rules_.empty(); }
  // FAILED_PRECONDITION if the key lacks the prefix to strip.
  absl::StatusOr<std::string> Apply(const std::string& stored) const;
  // In order. Refuses, naming both, two keys that would be one.
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
  static absl::StatusOr<KeyPatterns> Make(const char* field,
                                          const std::vector<std::string>& patterns);
  bool Match(const std::string& key) const { return First(key).has_value(); }
  // Which one matches first.
  std::optional<size_t> First(const std::string& key) const;

 private:
  std::vector<std::shared_ptr<const RE2>> patterns_;
};

}  // namespace modelstore::torch_internal
