// Models what survives a power loss: the synced bytes of each file, and the entries that
// each folder had when it was synced.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "absl/status/status.h"

namespace modelstore::testing {

// A file, independent of its names.
struct ModelFile {
  ~ModelFile();

  // A hard link outside the folder, so that the bytes survive the deletion of all names.
  std::string shadow;
  int64_t live_bytes = 0;
  int64_t durable_bytes = 0;
  // Size including preallocated space.
  int64_t allocated_bytes = 0;
  // The durable bytes, if an unsynced write has overwritten some.
  std::optional<std::string> overwritten;
  // Number of current names.
  int names = 0;
};

// Paths are relative to the folder, without a leading slash. Not thread-safe.
class DurableModel {
 public:
  // Existing content of `root` counts as durable.
  explicit DurableModel(std::string root);
  ~DurableModel();

  // Null if there is no such file.
  std::shared_ptr<ModelFile> Find(const std::string& path) const;

  // Record an operation that was performed on the folder.
  std::shared_ptr<ModelFile> Create(const std::string& path);
  void MakeFolder(const std::string& path);
  void RemoveFolder(const std::string& path);
  void Remove(const std::string& path);
  void Rename(const std::string& from, const std::string& to);
  void Link(const std::string& from, const std::string& to);
  // Must be called before bytes below `durable_bytes` are overwritten.
  void BeforeOverwrite(ModelFile& file);
  void SyncFile(ModelFile& file);
  void SyncFolder(const std::string& path);

  // Total size of all current files.
  int64_t used_bytes() const;

  // Writes the state after a power loss to `folder`, which must not exist. With `random`,
  // unsynced changes survive at random: a part of new bytes, entries of a folder.
  absl::Status Materialize(const std::string& folder, std::mt19937_64* random) const;

 private:
  using Entries = std::map<std::string, std::shared_ptr<ModelFile>>;

  void Load(const std::string& path);
  std::shared_ptr<ModelFile> Adopt(const std::string& path);
  // The folder must not contain folders.
  void RenameFolder(const std::string& from, const std::string& to);

  const std::string root_;
  const std::string shadow_root_;
  int64_t next_shadow_ = 0;
  Entries live_;
  Entries durable_;
  std::set<std::string> live_folders_;
  std::set<std::string> durable_folders_;
};

}  // namespace modelstore::testing
