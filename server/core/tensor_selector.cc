#include "server/core/tensor_selector.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/resource_names.h"

namespace modelstore::server {
namespace {

// Keys listed in an error message.
constexpr size_t kNamedKeys = 10;

// Appends the compiled patterns to `out`. INVALID_ARGUMENT naming the first invalid one.
absl::Status Compile(absl::string_view field,
                     const google::protobuf::RepeatedPtrField<std::string>& patterns,
                     std::vector<KeyPattern>* out) {
  for (int i = 0; i < patterns.size(); ++i) {
    auto pattern = KeyPattern::Compile(absl::StrCat(field, "[", i, "]"), patterns[i]);
    if (!pattern.ok()) return pattern.status();
    out->push_back(*std::move(pattern));
  }
  return absl::OkStatus();
}

// Returns the name of the checkpoint, or of both, for an error.
std::string NamesOf(const storage::Read& read, const storage::Read* other) {
  return other == nullptr
             ? FullCheckpointName(read)
             : absl::StrCat(FullCheckpointName(read), " or ", FullCheckpointName(*other));
}

// NOT_FOUND for a prefix or pattern without a match.
absl::Status MatchesNothing(absl::string_view field, absl::string_view pattern,
                            const std::string& checkpoint) {
  return MakeError(
      ERROR_REASON_NOT_FOUND,
      absl::StrCat(field, ": \"", pattern, "\" matches no tensor of ", checkpoint,
                   " in the selected sections; set allow_unmatched if that is meant"),
      {{"resource_type", "tensor"}, {"resource_name", std::string(pattern)}});
}

}  // namespace

absl::Status CheckSelectionSize(const v1::TensorSelection& selection, int further_entries,
                                size_t further_bytes) {
  const int entries = selection.sections_size() + selection.keys_size() +
                      selection.include_prefixes_size() +
                      selection.include_patterns_size() +
                      selection.exclude_patterns_size() + further_entries;
  if (entries > kMaxSelectionEntries ||
      selection.ByteSizeLong() + further_bytes / 2 > kMaxSelectionBytes) {
    return InvalidField("selection",
                        absl::StrCat("has ", entries, " entries and ",
                                     selection.ByteSizeLong() + further_bytes / 2,
                                     " bytes, at most ", kMaxSelectionEntries, " and ",
                                     kMaxSelectionBytes, " are allowed: use patterns"));
  }
  return absl::OkStatus();
}

absl::Status NoSuchKeys(absl::string_view field, std::vector<std::string> keys,
                        absl::string_view where) {
  std::sort(keys.begin(), keys.end());
  const size_t more = keys.size() - std::min(keys.size(), kNamedKeys);
  keys.resize(keys.size() - more);
  return MakeError(
      ERROR_REASON_NOT_FOUND,
      absl::StrCat(field, ": no tensor \"", absl::StrJoin(keys, "\", \""), "\"",
                   more > 0 ? absl::StrCat(" and ", more, " more") : "",
                   " in the selected sections of ", where),
      {{"resource_type", "tensor"}, {"resource_name", keys.front()}});
}

absl::StatusOr<TensorSelector> TensorSelector::Make(
    const v1::TensorSelection& selection) {
  TensorSelector selector;
  selector.sections_.insert(selection.sections().begin(), selection.sections().end());
  // Keys and prefixes may omit the section, which is then `model`. They are stored with
  // it, as Takes() compares whole names.
  for (const std::string& key : selection.keys()) {
    const TensorName name = ParseTensorName(key);
    selector.keys_.emplace(TensorNameOf(name.section, name.key), false);
  }
  for (const std::string& prefix : selection.include_prefixes()) {
    const TensorName name = ParseTensorName(prefix);
    selector.prefixes_.push_back(TensorNameOf(name.section, name.key));
  }
  auto status = Compile("selection.include_patterns", selection.include_patterns(),
                        &selector.include_);
  if (!status.ok()) return status;
  status = Compile("selection.exclude_patterns", selection.exclude_patterns(),
                   &selector.exclude_);
  if (!status.ok()) return status;
  selector.hits_.resize(selector.include_.size());
  selector.prefix_hits_.resize(selector.prefixes_.size());
  selector.allow_unmatched_ = selection.allow_unmatched();
  return selector;
}

bool TensorSelector::Takes(const storage::records::TensorRecord& tensor,
                           const std::string& name) {
  if (!TakesSection(tensor.section())) return false;
  // All entries are tried, even once the tensor is included, to record which of them have
  // matched. Only a pattern that has matched before is skipped.
  bool included = keys_.empty() && include_.empty() && prefixes_.empty();
  if (const auto key = keys_.find(name); key != keys_.end()) {
    included = true;
    key->second = true;
  }
  for (size_t i = 0; i < prefixes_.size(); ++i) {
    if (!absl::StartsWith(name, prefixes_[i])) continue;
    included = true;
    prefix_hits_[i] = true;
  }
  for (size_t i = 0; i < include_.size(); ++i) {
    if (included && hits_[i]) continue;
    if (!include_[i].Matches(tensor.section(), tensor.key(), name)) continue;
    included = true;
    hits_[i] = true;
  }
  if (!included) return false;
  ++included_;
  const bool taken = std::none_of(exclude_.begin(), exclude_.end(), [&](const auto& p) {
    return p.Matches(tensor.section(), tensor.key(), name);
  });
  if (taken) ++taken_;
  return taken;
}

absl::Status TensorSelector::CheckMatches(const storage::Read& read,
                                          const storage::Read* other) const {
  if (allow_unmatched_) return absl::OkStatus();
  const std::string checkpoint = NamesOf(read, other);
  std::vector<std::string> missing;
  for (const auto& [key, met] : keys_) {
    if (!met) missing.push_back(key);
  }
  if (!missing.empty()) {
    return NoSuchKeys("selection.keys", std::move(missing), checkpoint);
  }
  for (size_t i = 0; i < include_.size(); ++i) {
    if (hits_[i]) continue;
    // A pattern without operators is a key: report it as a tensor that does not exist.
    if (include_[i].IsLiteral() && other == nullptr) {
      return DoesNotExist("tensor", absl::StrCat(checkpoint, "/", include_[i].text()));
    }
    return MatchesNothing(absl::StrCat("selection.include_patterns[", i, "]"),
                          include_[i].text(), checkpoint);
  }
  for (size_t i = 0; i < prefixes_.size(); ++i) {
    if (prefix_hits_[i]) continue;
    return MatchesNothing(absl::StrCat("selection.include_prefixes[", i, "]"),
                          prefixes_[i], checkpoint);
  }
  if (included_ > 0 && taken_ == 0) {
    return InvalidField(
        "selection.exclude_patterns",
        absl::StrCat("leave out all ", included_, " tensors of ", checkpoint,
                     " that would be taken; set "
                     "allow_unmatched if that is meant"));
  }
  return absl::OkStatus();
}

absl::Status TensorSelector::CheckSections(const storage::Read& read,
                                           const storage::Read* other) const {
  absl::flat_hash_set<std::string> known;
  for (const storage::Read* of : {&read, other}) {
    if (of == nullptr) continue;
    for (const auto& section : of->checkpoint().sections()) known.insert(section.name());
  }
  for (const std::string& section : sections_) {
    if (known.contains(section)) continue;
    if (other != nullptr) {
      return MakeError(
          ERROR_REASON_NOT_FOUND,
          absl::StrCat("there is no section ", section, " in ", NamesOf(read, other)),
          {{"resource_type", "section"}, {"resource_name", section}});
    }
    return DoesNotExist("section",
                        absl::StrCat(FullCheckpointName(read), "/sections/", section));
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server
