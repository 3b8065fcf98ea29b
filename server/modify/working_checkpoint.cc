#include "server/modify/working_checkpoint.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/modify/value_references.h"

namespace modelstore::server::modify {
namespace {

// Maximum length of a module's path, which is the limit for keys.
constexpr size_t kMaxPathBytes = 1024;
// Decoding expands a section: a value of a few bytes becomes a message and a pointer to
// it.
constexpr int64_t kDecodedBytesPerByte = 16;
// A path and its value in a hash table that is half full.
constexpr int64_t kPathBytes = 128;

absl::Status TooManyBytes(absl::string_view what, int64_t bytes) {
  return absl::InvalidArgumentError(absl::StrCat(
      "makes ", what, " of ", bytes, " bytes and more, of at most ", kMaxManifestBytes));
}

}  // namespace

int64_t DecodedBytes(const storage::records::SectionRecord& section) {
  return static_cast<int64_t>(section.value().size()) * kDecodedBytesPerByte;
}

absl::StatusOr<WorkingCheckpoint> WorkingCheckpoint::Of(
    std::shared_ptr<storage::Read> base) {
  WorkingCheckpoint checkpoint(std::move(base));
  v1::Checkpoint metadata;
  auto s = AddFullMetadata(checkpoint.base_->checkpoint().metadata(),
                           FullCheckpointName(*checkpoint.base_), &metadata);
  if (!s.ok()) return s;
  if (metadata.has_architecture()) {
    checkpoint.architecture_ = std::move(*metadata.mutable_architecture());
  }
  if (s = checkpoint.AddTensors(); !s.ok()) return s;
  for (const auto& section : checkpoint.base_->manifest().sections()) {
    checkpoint.sections_.push_back({section, std::nullopt});
  }
  checkpoint.Reindex();
  return checkpoint;
}

absl::Status WorkingCheckpoint::AddTensors() {
  const auto& manifest = base_->manifest();
  absl::flat_hash_map<std::string, int> positions;
  absl::flat_hash_map<int, int> groups;
  tensors_.reserve(manifest.tensors_size());
  for (int t = 0; t < manifest.tensors_size(); ++t) {
    const auto& record = manifest.tensors(t);
    WorkingTensor tensor;
    tensor.section = record.section();
    tensor.key = record.key();
    tensor.dtype = static_cast<DType>(record.dtype());
    tensor.shape.assign(record.shape().begin(), record.shape().end());
    tensor.role = static_cast<v1::TensorRole>(record.role());
    tensor.requires_grad = record.requires_grad();
    tensor.origin = t;
    owners_.push_back(t);
    if (record.tied_to().empty()) {
      tensor.source = StoredSource(base_, t);
    } else {
      // A tensor is tied to an earlier one of the manifest, which stores the bytes.
      auto owner = positions.find(record.tied_to());
      if (owner == positions.end()) {
        return absl::DataLossError(
            absl::StrCat(TensorNameOf(record.section(), record.key()), " is tied to ",
                         record.tied_to(), ", which is not before it in the table"));
      }
      owners_.back() = owner->second;
      WorkingTensor& first = tensors_[owner->second];
      if (first.tied_group == 0) first.tied_group = NewTiedGroup();
      tensor.tied_group = first.tied_group;
      tensor.source = first.source;
    }
    positions.emplace(TensorNameOf(tensor.section, tensor.key), t);
    tensors_.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

void WorkingCheckpoint::Reindex() {
  index_.clear();
  groups_.clear();
  index_.reserve(tensors_.size());
  for (size_t t = 0; t < tensors_.size(); ++t) {
    index_.emplace(std::make_pair(tensors_[t].section, tensors_[t].key), t);
    if (tensors_[t].tied_group == 0) continue;
    TiedGroup& group = groups_[tensors_[t].tied_group];
    group.positions.push_back(t);
    ++group.members;
  }
}

WorkingTensor* WorkingCheckpoint::Find(absl::string_view section, absl::string_view key) {
  auto it = index_.find(std::make_pair(std::string(section), std::string(key)));
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

std::vector<WorkingTensor*> WorkingCheckpoint::TiedTo(WorkingTensor& tensor) {
  if (tensor.tied_group == 0) return {&tensor};
  std::vector<WorkingTensor*> group;
  for (const size_t t : groups_[tensor.tied_group].positions) {
    if (tensors_[t].tied_group == tensor.tied_group) group.push_back(&tensors_[t]);
  }
  return group;
}

size_t WorkingCheckpoint::Untie(WorkingTensor& tensor) {
  if (tensor.tied_group == 0) return 0;
  // The position stays in the group until the next Reindex(); TiedTo() skips it.
  const int group = std::exchange(tensor.tied_group, 0);
  return --groups_[group].members;
}

bool WorkingCheckpoint::HasOriginalBytes(const WorkingTensor& tensor) const {
  if (!tensor.origin.has_value()) return false;
  const TensorSource::Stored* stored = tensor.source->stored();
  return stored != nullptr && stored->read == base_ &&
         stored->tensor == owners_[*tensor.origin];
}

bool WorkingCheckpoint::HasOriginalValues(const WorkingTensor& tensor) const {
  if (!tensor.origin.has_value()) return false;
  const TensorSource::Stored* stored = WithoutCasts(*tensor.source).stored();
  return stored != nullptr && stored->read == base_ &&
         stored->tensor == owners_[*tensor.origin];
}

absl::Status WorkingCheckpoint::Insert(size_t position,
                                       std::vector<WorkingTensor> tensors) {
  if (tensors_.size() + tensors.size() > static_cast<size_t>(kMaxTensors)) {
    return absl::InvalidArgumentError(absl::StrCat("leaves ",
                                                   tensors_.size() + tensors.size(),
                                                   " tensors, of at most ", kMaxTensors));
  }
  // Checks all tensors before the first change.
  absl::flat_hash_set<std::string> names;
  for (const WorkingTensor& tensor : tensors) {
    const std::string name = TensorNameOf(tensor.section, tensor.key);
    if (Find(tensor.section, tensor.key) != nullptr || !names.insert(name).second) {
      return AlreadyExists("tensor", name);
    }
    if (auto s = ValidateKey("key", tensor.key); !s.ok()) return s;
  }
  tensors_.insert(tensors_.begin() + static_cast<ptrdiff_t>(position),
                  std::make_move_iterator(tensors.begin()),
                  std::make_move_iterator(tensors.end()));
  Reindex();
  return absl::OkStatus();
}

absl::StatusOr<int> WorkingCheckpoint::EraseIf(
    absl::FunctionRef<bool(const WorkingTensor&)> gone) {
  absl::flat_hash_map<std::string, absl::flat_hash_set<std::string>> erased;
  const size_t before = tensors_.size();
  std::erase_if(tensors_, [&](const WorkingTensor& tensor) {
    if (!gone(tensor)) return false;
    erased[tensor.section].insert(tensor.key);
    return true;
  });
  Reindex();
  for (const auto& [section, keys] : erased) {
    auto s = ChangeReferences(
        section, [&keys = keys](const std::string& key) -> std::optional<std::string> {
          if (keys.contains(key)) return std::nullopt;
          return key;
        });
    if (!s.ok()) return s;
  }
  return static_cast<int>(before - tensors_.size());
}

absl::Status WorkingCheckpoint::Rename(
    absl::string_view section,
    absl::FunctionRef<std::string(const WorkingTensor&)> new_key) {
  // Computes and checks all new keys before the first change. `taken` includes the keys
  // that stay, so swaps of keys are allowed and collisions are found.
  absl::flat_hash_map<std::string, std::string> renamed;
  absl::flat_hash_set<std::string> taken;
  int64_t bytes = 0;
  for (const WorkingTensor& tensor : tensors_) {
    if (tensor.section != section) continue;
    std::string key = new_key(tensor);
    if (auto s = ValidateKey("key", key); !s.ok()) return s;
    bytes += static_cast<int64_t>(key.size());
    if (bytes > kMaxManifestBytes) return TooManyBytes("keys", bytes);
    if (!taken.insert(key).second) {
      return AlreadyExists("tensor", TensorNameOf(section, key));
    }
    if (key != tensor.key) renamed.emplace(tensor.key, std::move(key));
  }
  auto renamed_key = [&](const std::string& key) -> std::optional<std::string> {
    auto it = renamed.find(key);
    return it == renamed.end() ? key : it->second;
  };
  if (renamed.empty()) return absl::OkStatus();
  if (auto s = ChangeReferences(section, renamed_key); !s.ok()) return s;
  for (WorkingTensor& tensor : tensors_) {
    if (tensor.section == section) tensor.key = *renamed_key(tensor.key);
  }
  Reindex();
  return absl::OkStatus();
}

std::vector<std::string> WorkingCheckpoint::SectionNames() const {
  std::vector<std::string> names;
  for (const StoredSection& section : sections_) names.push_back(section.record.name());
  for (const WorkingTensor& tensor : tensors_) {
    // Tensors of one section are usually adjacent: this comparison avoids most searches.
    if (!names.empty() && names.back() == tensor.section) continue;
    if (std::find(names.begin(), names.end(), tensor.section) == names.end()) {
      names.push_back(tensor.section);
    }
  }
  return names;
}

bool WorkingCheckpoint::HasSection(absl::string_view section) const {
  const std::vector<std::string> names = SectionNames();
  return std::find(names.begin(), names.end(), section) != names.end();
}

WorkingCheckpoint::StoredSection* WorkingCheckpoint::FindSection(
    absl::string_view section) {
  for (StoredSection& stored : sections_) {
    if (stored.record.name() == section) return &stored;
  }
  return nullptr;
}

absl::StatusOr<v1::Section*> WorkingCheckpoint::Section(absl::string_view section) {
  StoredSection* stored = FindSection(section);
  if (stored == nullptr) return nullptr;
  if (!stored->section.has_value()) {
    auto decoded = SectionFromRecord(stored->record, FullCheckpointName(*base_));
    if (!decoded.ok()) return decoded.status();
    stored->section = *std::move(decoded);
  }
  return &*stored->section;
}

int64_t WorkingCheckpoint::UndecodedBytes(absl::string_view section) const {
  for (const StoredSection& stored : sections_) {
    if (stored.record.name() != section) continue;
    return stored.section.has_value() ? 0 : DecodedBytes(stored.record);
  }
  return 0;
}

bool WorkingCheckpoint::DropSection(absl::string_view section) {
  if (!HasSection(section)) return false;
  std::erase_if(sections_, [&](const StoredSection& stored) {
    return stored.record.name() == section;
  });
  std::erase_if(tensors_,
                [&](const WorkingTensor& tensor) { return tensor.section == section; });
  Reindex();
  return true;
}

absl::Status WorkingCheckpoint::ChangeReferences(
    absl::string_view section,
    absl::FunctionRef<std::optional<std::string>(const std::string& key)> new_key) {
  StoredSection* stored = FindSection(section);
  if (stored == nullptr) return absl::OkStatus();
  // Works on a copy, so that a section without changed references is not marked as
  // decoded and is stored byte for byte.
  v1::Section changed_section;
  if (stored->section.has_value()) {
    changed_section = *stored->section;
  } else {
    auto decoded = SectionFromRecord(stored->record, FullCheckpointName(*base_));
    if (!decoded.ok()) return decoded.status();
    changed_section = *std::move(decoded);
  }
  if (!changed_section.has_value()) return absl::OkStatus();
  if (modify::ChangeReferences(changed_section.mutable_value(), new_key)) {
    stored->section = std::move(changed_section);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::DictValue*> WorkingCheckpoint::Metadata(absl::string_view section) {
  auto found = Section(section);
  if (!found.ok()) return found.status();
  if (*found == nullptr || !(*found)->metadata().has_dict_value()) return nullptr;
  return (*found)->mutable_metadata()->mutable_dict_value();
}

absl::Status WorkingCheckpoint::RenameMetadata(
    absl::string_view section,
    absl::FunctionRef<std::optional<std::string>(absl::string_view path)> new_path) {
  auto metadata = Metadata(section);
  if (!metadata.ok()) return metadata.status();
  if (*metadata == nullptr) return absl::OkStatus();
  auto& entries = *(*metadata)->mutable_entries();
  int64_t bytes = 0;
  // New path of each entry; absent if the entry is removed or its key is not a module's
  // path.
  std::vector<std::optional<std::string>> paths(entries.size());
  std::vector<bool> gone(entries.size(), false);
  absl::flat_hash_set<absl::string_view> renamed;
  for (int i = 0; i < entries.size(); ++i) {
    const std::string& old_path = entries[i].key().string_value();
    // A longer string is no module's path, because the keys below it would be too long.
    if (!entries[i].key().has_string_value() || old_path.size() > kMaxPathBytes) continue;
    paths[i] = new_path(old_path);
    gone[i] = !paths[i].has_value();
    if (gone[i]) continue;
    if (paths[i]->size() > kMaxPathBytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "makes a module's path of ", paths[i]->size(), " bytes in `_metadata` of ",
          section, ", of at most ", kMaxPathBytes));
    }
    bytes += static_cast<int64_t>(paths[i]->size());
    if (bytes > kMaxManifestBytes) return TooManyBytes("module paths", bytes);
    if (*paths[i] != old_path && !renamed.insert(*paths[i]).second) {
      return AlreadyExists("entry of `_metadata`", TensorNameOf(section, *paths[i]));
    }
  }
  int kept = 0;
  for (int i = 0; i < entries.size(); ++i) {
    if (gone[i]) continue;
    if (paths[i].has_value()) {
      std::string& path = *entries[i].mutable_key()->mutable_string_value();
      // A renamed entry replaces this one.
      if (path == *paths[i] && renamed.contains(path)) continue;
      path = *paths[i];
    }
    if (kept != i) entries.SwapElements(kept, i);
    ++kept;
  }
  while (entries.size() > kept) entries.RemoveLast();
  return absl::OkStatus();
}

int64_t WorkingCheckpoint::PathBytes(absl::string_view section) const {
  int64_t paths = 0;
  absl::string_view before;
  for (const WorkingTensor& tensor : tensors_) {
    if (tensor.section != section) continue;
    // Adjacent keys share most of their module paths: counts only dots after the common
    // prefix.
    const absl::string_view key = tensor.key;
    const auto fresh =
        std::mismatch(before.begin(), before.end(), key.begin(), key.end());
    paths += std::count(fresh.second, key.end(), '.');
    before = key;
  }
  return paths * kPathBytes;
}

int64_t WorkingCheckpoint::MemoryBytes() const {
  int64_t bytes = 0;
  for (const WorkingTensor& tensor : tensors_) {
    bytes +=
        static_cast<int64_t>(sizeof(tensor) + tensor.section.size() + tensor.key.size() +
                             tensor.shape.size() * sizeof(int64_t));
    // The parts of a composed source, and the runs of kept rows.
    bytes += static_cast<int64_t>(tensor.source->parts().size()) * kPartBytes;
    if (tensor.kept_rows.has_value()) {
      bytes += static_cast<int64_t>(tensor.kept_rows->rows.size() * sizeof(RowRun));
    }
  }
  for (const StoredSection& section : sections_) {
    if (section.section.has_value()) {
      bytes += static_cast<int64_t>(section.section->SpaceUsedLong());
    }
  }
  if (architecture_.has_value()) {
    bytes += static_cast<int64_t>(architecture_->SpaceUsedLong());
  }
  return bytes;
}

}  // namespace modelstore::server::modify
