#include "server/modify/module_metadata.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/value.h"

namespace modelstore::server::modify {
namespace {

constexpr absl::string_view kModel = "model";

bool IsAtOrUnder(absl::string_view path, absl::string_view module) {
  if (module.empty() || path == module) return true;
  return path.size() > module.size() && absl::StartsWith(path, module) &&
         path[module.size()] == '.';
}

void Collect(const ModuleTree& module, const std::string& path,
             MetadataEntries& entries) {
  v1::Value dict;
  auto* version = dict.mutable_dict_value()->add_entries();
  *version->mutable_key() = StringValue("version");
  *version->mutable_value() = IntValue(ModuleVersion(module.type()));
  entries.emplace_back(path, std::move(dict));
  for (const ModuleTree& child : module.children()) {
    Collect(child, JoinModulePath(path, child.name()), entries);
  }
}

}  // namespace

MetadataEntries MetadataOf(const ModuleTree& module, const std::string& path) {
  MetadataEntries entries;
  Collect(module, path, entries);
  return entries;
}

absl::StatusOr<MetadataEntries> MetadataUnder(WorkingCheckpoint& from,
                                              absl::string_view source,
                                              absl::string_view target) {
  MetadataEntries entries;
  auto metadata = from.Metadata(kModel);
  if (!metadata.ok()) return metadata.status();
  if (*metadata == nullptr) return entries;
  for (const auto& entry : (*metadata)->entries()) {
    const std::string& path = entry.key().string_value();
    if (!entry.key().has_string_value() || !IsAtOrUnder(path, source)) continue;
    entries.emplace_back(absl::StrCat(target, path.substr(source.size())), entry.value());
  }
  return entries;
}

absl::Status ReplaceMetadata(absl::string_view path, MetadataEntries entries,
                             WorkingCheckpoint& checkpoint) {
  auto metadata = checkpoint.Metadata(kModel);
  if (!metadata.ok()) return metadata.status();
  if (*metadata == nullptr) return absl::OkStatus();
  const absl::string_view parent = SplitModulePath(path).first;
  v1::DictValue replaced;
  int place = -1, behind = 0;
  for (auto& entry : *(*metadata)->mutable_entries()) {
    const bool is_path = entry.key().has_string_value();
    if (is_path && IsAtOrUnder(entry.key().string_value(), path)) {
      if (place < 0) place = replaced.entries_size();
      continue;
    }
    *replaced.add_entries() = std::move(entry);
    const auto& kept = replaced.entries(replaced.entries_size() - 1);
    if (is_path && IsAtOrUnder(kept.key().string_value(), parent)) {
      behind = replaced.entries_size();
    }
  }
  if (place < 0) place = behind;
  // Appends the new entries and rotates them to their place.
  const int moved = replaced.entries_size() - place;
  for (auto& [module, dict] : entries) {
    auto* entry = replaced.add_entries();
    entry->mutable_key()->set_string_value(module);
    *entry->mutable_value() = std::move(dict);
  }
  std::rotate(replaced.mutable_entries()->pointer_begin() + place,
              replaced.mutable_entries()->pointer_begin() + place + moved,
              replaced.mutable_entries()->pointer_end());
  **metadata = std::move(replaced);
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
