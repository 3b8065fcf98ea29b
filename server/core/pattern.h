// RE2 patterns that clients send.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace modelstore::server {

// With bounded memory. INVALID_ARGUMENT naming `field` if it does not compile.
absl::StatusOr<std::unique_ptr<RE2>> CompilePattern(absl::string_view field,
                                                    absl::string_view pattern);

// A pattern over `section:key`. One that mentions no section (has no `:` outside
// of `(?i:` and `[:alpha:]`) speaks of the keys of `model`.
class KeyPattern {
 public:
  static absl::StatusOr<KeyPattern> Compile(absl::string_view field,
                                            absl::string_view pattern);

  // `name` is `section:key`.
  bool Matches(absl::string_view section, absl::string_view key,
               const std::string& name) const;
  const std::string& text() const { return text_; }
  // Has no operators: names one key.
  bool IsLiteral() const;

 private:
  std::string text_;
  std::unique_ptr<RE2> regex_;
  bool has_section_ = false;
};

}  // namespace modelstore::server
