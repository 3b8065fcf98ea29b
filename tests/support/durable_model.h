// What of a folder would outlive power loss: for each file the bytes that were
// synced, for each folder the entries that it had when it was synced.
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

// A file, whatever its names are.
struct ModelFile {
  ~ModelFile();

  // A hard link beside the folder: the bytes outlive every name in it.
  std::string shadow;
  int64_t live_bytes = 0;
  int64_t durable_bytes = 0;
  // Taken by preallocation, beyond what was written.
  int64_t allocated_bytes = 0;
  // The durable bytes, where a write that is not synced has overwritten them.
  std::optional<std::string> overwritten;
  // Names in the folder as it is.
  int names = 0;
};

// Paths are relative to the folder, without a leading slash. Not thread-safe.
class DurableModel {
 public:
  // What lies in `root` already counts as durable.
  explicit DurableModel(std::string root);
  ~DurableModel();

  // Null if there is no such file.
  std::shared_ptr<ModelFile> Find(const std::string& path) const;

  // Each follows what was done to the folder itself.
  std::shared_ptr<ModelFile> Create(const std::string& path);
  void MakeFolder(const std::string& path);
  void RemoveFolder(const std::string& path);
  void Remove(const std::string& path);
  void Rename(const std::string& from, const std::string& to);
  void Link(const std::string& from, const std::string& to);
  // Before bytes in front of the durable end are written again.
  void BeforeOverwrite(ModelFile& file);
  void SyncFile(ModelFile& file);
  void SyncFolder(const std::string& path);

  // Bytes of all files as they are.
  int64_t used_bytes() const;

  // Writes the state after power loss to `folder`, which must not exist. With
  // `random`, what was not synced survives by chance: a part of the new bytes,
  // the entries of a folder.
  absl::Status Materialize(const std::string& folder, std::mt19937_64* random) const;

 private:
  using Entries = std::map<std::string, std::shared_ptr<ModelFile>>;

  void Load(const std::string& path);
  std::shared_ptr<ModelFile> Adopt(const std::string& path);
  // One without folders in it.
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
