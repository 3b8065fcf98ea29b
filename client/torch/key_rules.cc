#include "client/torch/key_rules.h"

#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"

namespace modelstore::torch_internal {
namespace {

// Maximum number of keys that an error message lists.
constexpr size_t kMaxKeysInError = 3;

// Compiles a pattern so that it matches whole keys only.
absl::StatusOr<std::shared_ptr<const RE2>> CompileKeyPattern(const std::string& field,
                                                             const std::string& pattern) {
  RE2::Options options;
  options.set_log_errors(false);
  // Compiled alone first: `a)(b` is invalid, but would be valid inside the group below.
  const RE2 alone(pattern, options);
  if (!alone.ok()) {
    return InvalidField(field, absl::StrCat("not an RE2 pattern: ", alone.error()));
  }
  return std::make_shared<const RE2>(absl::StrCat("\\A(?:", pattern, ")\\z"), options);
}

}  // namespace

absl::StatusOr<KeyRenames> KeyRenames::Make(const LoadArgs& args) {
  KeyRenames renames;
  renames.strip_ = args.strip_prefix;
  renames.add_ = args.add_prefix;
  for (size_t i = 0; i < args.renames.size(); ++i) {
    const std::string field = absl::StrCat("renames[", i, "]");
    auto pattern = CompileKeyPattern(field, args.renames[i].first);
    if (!pattern.ok()) return pattern.status();
    std::string why;
    if (!(*pattern)->CheckRewriteString(args.renames[i].second, &why)) {
      return InvalidField(field, why);
    }
    renames.rules_.push_back({*std::move(pattern), args.renames[i].second});
  }
  return renames;
}

absl::StatusOr<std::string> KeyRenames::Apply(const std::string& stored) const {
  if (!absl::StartsWith(stored, strip_)) {
    return absl::FailedPreconditionError(
        absl::StrCat("stored key \"", stored, "\" has no prefix \"", strip_, "\""));
  }
  std::string key = absl::StrCat(add_, absl::string_view(stored).substr(strip_.size()));
  for (const Rule& rule : rules_) {
    // The pattern is anchored, so Extract() rewrites the whole key.
    std::string renamed;
    if (RE2::Extract(key, *rule.pattern, rule.replacement, &renamed)) return renamed;
  }
  return key;
}

absl::StatusOr<std::vector<std::string>> KeyRenames::ApplyAll(
    const std::vector<std::string>& stored) const {
  std::vector<std::string> keys, without;
  std::map<std::string, std::string> from;
  for (const std::string& key : stored) {
    if (!absl::StartsWith(key, strip_)) {
      if (without.size() < kMaxKeysInError) without.push_back(key);
      continue;
    }
    absl::StatusOr<std::string> renamed = Apply(key);
    if (!renamed.ok()) return renamed.status();
    const auto [it, fresh] = from.emplace(*renamed, key);
    if (!fresh) {
      return absl::FailedPreconditionError(
          absl::StrCat("stored keys \"", it->second, "\" and \"", key,
                       "\" would both be \"", *renamed, "\": make renames differ"));
    }
    keys.push_back(*std::move(renamed));
  }
  if (without.empty()) return keys;
  return absl::FailedPreconditionError(absl::StrCat(
      "strip_prefix \"", strip_, "\" is not that of every stored key: \"",
      absl::StrJoin(without, "\", \""), "\"; exclude those, or use renames"));
}

absl::StatusOr<KeyPatterns> KeyPatterns::Make(const char* field,
                                              const std::vector<std::string>& patterns) {
  KeyPatterns result;
  for (size_t i = 0; i < patterns.size(); ++i) {
    auto pattern = CompileKeyPattern(absl::StrCat(field, "[", i, "]"), patterns[i]);
    if (!pattern.ok()) return pattern.status();
    result.patterns_.push_back(*std::move(pattern));
  }
  return result;
}

std::optional<size_t> KeyPatterns::First(const std::string& key) const {
  for (size_t i = 0; i < patterns_.size(); ++i) {
    if (RE2::PartialMatch(key, *patterns_[i])) return i;
  }
  return std::nullopt;
}

}  // namespace modelstore::torch_internal
