// RE2 patterns that clients send.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace modelstore::server {

// Compiles `pattern`, with bounded memory. INVALID_ARGUMENT naming `field` if it is too
// long or not valid RE2.
absl::StatusOr<std::unique_ptr<RE2>> CompilePattern(absl::string_view field,
                                                    absl::string_view pattern);

// A pattern for tensor names, `section:key`, that must match all of a name. A pattern
// without a section (without `:`, other than in `(?i:` and `[:alpha:]`) matches keys of
// section `model` only.
class KeyPattern {
 public:
  // Errors as of CompilePattern().
  static absl::StatusOr<KeyPattern> Compile(absl::string_view field,
                                            absl::string_view pattern);

  // `name` is `section:key`, which the caller has at hand.
  bool Matches(absl::string_view section, absl::string_view key,
               const std::string& name) const;
  const std::string& text() const { return text_; }
  // True if the pattern has no operators except `.`, so that it most likely is a key.
  bool IsLiteral() const;

 private:
  std::string text_;
  std::unique_ptr<RE2> regex_;
  bool has_section_ = false;
};

}  // namespace modelstore::server
