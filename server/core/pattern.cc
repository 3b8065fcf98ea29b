#include "server/core/pattern.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore::server {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
// Of the compiled program and its DFA cache. A client may send thousands of patterns.
constexpr int64_t kMaxPatternMemory = 4 << 20;

// True if the pattern has a `:` that separates a section from a key. Scans the pattern
// once and ignores escaped characters, group flags such as `(?i:`, and classes such as
// `[[:alpha:]]`.
bool MentionsSection(absl::string_view pattern) {
  bool in_group_flags = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      ++i;
    } else if (c == '(' && pattern.substr(i, 2) == "(?") {
      in_group_flags = true;
    } else if (in_group_flags && (c == ':' || c == ')' || c == '>')) {
      in_group_flags = false;
    } else if (c == ':') {
      const bool in_class_name =
          (i > 0 && pattern[i - 1] == '[') || pattern.substr(i, 2) == ":]";
      if (!in_class_name) return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RE2>> CompilePattern(absl::string_view field,
                                                    absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return InvalidField(field, absl::StrCat("has ", pattern.size(), " bytes, at most ",
                                            kMaxPatternBytes, " are allowed"));
  }
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxPatternMemory);
  auto regex =
      std::make_unique<RE2>(re2::StringPiece(pattern.data(), pattern.size()), options);
  if (!regex->ok()) {
    return InvalidField(field, absl::StrCat("not an RE2 pattern: ", regex->error()));
  }
  return regex;
}

absl::StatusOr<KeyPattern> KeyPattern::Compile(absl::string_view field,
                                               absl::string_view pattern) {
  auto regex = CompilePattern(field, pattern);
  if (!regex.ok()) return regex.status();
  KeyPattern result;
  result.text_ = std::string(pattern);
  result.regex_ = *std::move(regex);
  result.has_section_ = MentionsSection(pattern);
  return result;
}

bool KeyPattern::Matches(absl::string_view section, absl::string_view key,
                         const std::string& name) const {
  if (has_section_) return RE2::FullMatch(name, *regex_);
  return section == "model" &&
         RE2::FullMatch(re2::StringPiece(key.data(), key.size()), *regex_);
}

bool KeyPattern::IsLiteral() const {
  return text_.find_first_of("*+?()[]{}|^$\\") == std::string::npos;
}

}  // namespace modelstore::server
