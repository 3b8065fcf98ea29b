#include "tests/support/durable_model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace modelstore::testing {
namespace {

namespace fs = std::filesystem;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string ReadBytes(const std::string& path, int64_t bytes) {
  std::string content(static_cast<size_t>(bytes), '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(content.data(), bytes);
  content.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  return content;
}

}  // namespace

ModelFile::~ModelFile() {
  std::error_code ignored;
  fs::remove(shadow, ignored);
}

DurableModel::DurableModel(std::string root)
    : root_(std::move(root)), shadow_root_(root_ + ".shadow") {
  std::error_code ignored;
  fs::remove_all(shadow_root_, ignored);
  fs::create_directories(shadow_root_);
  live_folders_.insert("");
  durable_folders_.insert("");
  if (fs::exists(root_)) Load("");
}

DurableModel::~DurableModel() {
  live_.clear();
  durable_.clear();
  std::error_code ignored;
  fs::remove_all(shadow_root_, ignored);
}

void DurableModel::Load(const std::string& path) {
  live_folders_.insert(path);
  durable_folders_.insert(path);
  for (const auto& entry : fs::directory_iterator(absl::StrCat(root_, "/", path))) {
    const std::string name =
        absl::StrCat(path, path.empty() ? "" : "/", entry.path().filename().string());
    if (entry.is_directory()) {
      Load(name);
      continue;
    }
    std::shared_ptr<ModelFile> file = Adopt(name);
    file->live_bytes = file->durable_bytes = static_cast<int64_t>(entry.file_size());
    durable_[name] = file;
  }
}

std::shared_ptr<ModelFile> DurableModel::Adopt(const std::string& path) {
  auto file = std::make_shared<ModelFile>();
  file->shadow = absl::StrCat(shadow_root_, "/", next_shadow_++);
  std::error_code ignored;
  fs::create_hard_link(absl::StrCat(root_, "/", path), file->shadow, ignored);
  file->names = 1;
  live_[path] = file;
  return file;
}

std::shared_ptr<ModelFile> DurableModel::Find(const std::string& path) const {
  const auto it = live_.find(path);
  return it == live_.end() ? nullptr : it->second;
}

std::shared_ptr<ModelFile> DurableModel::Create(const std::string& path) {
  Remove(path);
  return Adopt(path);
}

void DurableModel::MakeFolder(const std::string& path) { live_folders_.insert(path); }

void DurableModel::RemoveFolder(const std::string& path) { live_folders_.erase(path); }

void DurableModel::Remove(const std::string& path) {
  const auto it = live_.find(path);
  if (it == live_.end()) return;
  --it->second->names;
  live_.erase(it);
}

void DurableModel::Rename(const std::string& from, const std::string& to) {
  if (live_folders_.count(from) > 0) return RenameFolder(from, to);
  const auto it = live_.find(from);
  if (it == live_.end()) return;
  std::shared_ptr<ModelFile> file = it->second;
  Remove(to);
  live_.erase(from);
  live_[to] = std::move(file);
}

void DurableModel::RenameFolder(const std::string& from, const std::string& to) {
  live_folders_.erase(from);
  live_folders_.insert(to);
  Entries moved;
  for (auto it = live_.begin(); it != live_.end();) {
    if (FolderOf(it->first) != from) {
      ++it;
      continue;
    }
    moved[to + it->first.substr(from.size())] = std::move(it->second);
    it = live_.erase(it);
  }
  live_.merge(moved);
}

void DurableModel::Link(const std::string& from, const std::string& to) {
  std::shared_ptr<ModelFile> file = Find(from);
  if (file == nullptr) return;
  ++file->names;
  live_[to] = std::move(file);
}

void DurableModel::BeforeOverwrite(ModelFile& file) {
  if (!file.overwritten.has_value()) {
    file.overwritten = ReadBytes(file.shadow, file.durable_bytes);
  }
}

void DurableModel::SyncFile(ModelFile& file) {
  file.durable_bytes = file.live_bytes;
  file.overwritten.reset();
}

void DurableModel::SyncFolder(const std::string& path) {
  std::erase_if(durable_,
                [&](const auto& entry) { return FolderOf(entry.first) == path; });
  for (const auto& [name, file] : live_) {
    if (FolderOf(name) == path) durable_[name] = file;
  }
  const auto is_child = [&](const std::string& folder) {
    return !folder.empty() && FolderOf(folder) == path;
  };
  std::erase_if(durable_folders_, is_child);
  for (const std::string& folder : live_folders_) {
    if (is_child(folder)) durable_folders_.insert(folder);
  }
}

int64_t DurableModel::used_bytes() const {
  int64_t bytes = 0;
  std::set<const ModelFile*> seen;
  for (const auto& [name, file] : live_) {
    if (!seen.insert(file.get()).second) continue;
    bytes += std::max(file->live_bytes, file->allocated_bytes);
  }
  return bytes;
}

absl::Status DurableModel::Materialize(const std::string& folder,
                                       std::mt19937_64* random) const {
  const auto chance = [&] { return random != nullptr && (*random)() % 2 == 0; };
  // Each folder has its synced entries or, at random, its last entries.
  std::map<std::string, bool> is_current;
  const auto survives = [&](const Entries& other, const std::string& name) {
    const auto [it, is_new] = is_current.try_emplace(FolderOf(name), false);
    if (is_new) it->second = chance();
    return it->second == (&other == &live_);
  };
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return absl::InternalError(absl::StrCat(folder, ": ", error.message()));
  for (const std::string& name : random == nullptr ? durable_folders_ : live_folders_) {
    fs::create_directories(absl::StrCat(folder, "/", name), error);
  }
  for (const Entries* entries : {&durable_, &live_}) {
    for (const auto& [name, file] : *entries) {
      if (!survives(*entries, name)) continue;
      const std::string path = absl::StrCat(folder, "/", name);
      // If its folder is lost, so is the file.
      if (!fs::exists(fs::path(path).parent_path())) continue;
      std::string content;
      if (file->overwritten.has_value() && !chance()) {
        content = *file->overwritten;
      } else {
        const int64_t fresh =
            std::max<int64_t>(file->live_bytes - file->durable_bytes, 0);
        const int64_t kept =
            chance()
                ? static_cast<int64_t>((*random)() % static_cast<uint64_t>(fresh + 1))
                : 0;
        content = ReadBytes(file->shadow, file->durable_bytes + kept);
      }
      std::ofstream out(path, std::ios::binary);
      out.write(content.data(), static_cast<std::streamsize>(content.size()));
      if (!out.flush()) return absl::InternalError(absl::StrCat("cannot write ", path));
    }
  }
  return absl::OkStatus();
}

}  // namespace modelstore::testing
