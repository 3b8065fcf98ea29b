// Keeps what a store replaced when its operator accepted a loss.
//
// Each accepted loss has its own folder quarantine/{time}/: the catalog as it was found,
// its HIGH_WATER, and the packs that the new catalog does not name. The store deletes
// nothing in it; README.txt describes how to restore it. Next to these folders are packs
// that could not be ingested; DropPacks() deletes quarantine/{pack}.sst when no version
// uses the pack any more.
//
// A loss is open from the replacement of the catalog until all packs have been compared
// with the new catalog. Meanwhile the file SALVAGE names the folder, so that a crash in
// between loses no pack.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/contract/mutex.h"
#include "rocksdb/file_system.h"

namespace modelstore::storage::rocks {

// Thread-safe.
class Quarantine {
 public:
  // `store` is the folder of the store.
  Quarantine(std::shared_ptr<rocksdb::FileSystem> fs, std::string store);

  // Continues a loss that a crash left open.
  absl::Status Load() EXCLUDES(mutex_);

  // The folder of the open loss; empty if there is none.
  std::string folder() const EXCLUDES(mutex_);

  // Opens a loss durably. No effect if one is open.
  absl::Status Begin(absl::string_view why) EXCLUDES(mutex_);
  // Moves the folder `path` into the open loss as `name`, with a number appended if the
  // name is in use. The caller syncs the parent that it leaves.
  absl::Status TakeFolder(const std::string& path, const std::string& name);
  // Links a pack's file into the open loss durably; the caller deletes the original.
  // `kept` is the new path, with a number if another file of the pack is already there.
  absl::Status KeepPack(const std::string& path, uint64_t pack, std::string* kept);
  // Ends the open loss; its folder stays.
  absl::Status End() EXCLUDES(mutex_);

 private:
  std::string marker() const { return store_ + "/SALVAGE"; }

  const std::shared_ptr<rocksdb::FileSystem> fs_;
  const std::string store_;
  mutable Mutex mutex_;
  std::string folder_ GUARDED_BY(mutex_);
};

// Copies the first `bytes` bytes of a file, or all of it, and syncs the copy.
rocksdb::IOStatus CopyBytes(rocksdb::FileSystem* fs, const std::string& from,
                            const std::string& to, uint64_t bytes = UINT64_MAX);
// Copies a file to `draft` and renames it: `to` is complete or does not exist.
rocksdb::IOStatus CopyEntireFile(rocksdb::FileSystem* fs, const std::string& from,
                                 const std::string& draft, const std::string& to);
// Returns `path`, or the first unused of {stem}-2, {stem}-3, ...
std::string FreeName(rocksdb::FileSystem* fs, const std::string& path);
// Links a file that is no longer written to, or copies it if links are not supported.
rocksdb::IOStatus LinkOrCopyFile(rocksdb::FileSystem* fs, const std::string& from,
                                 const std::string& to);
// Deletes the files of a folder, and the folder.
rocksdb::IOStatus DeleteFolder(rocksdb::FileSystem* fs, const std::string& path);

}  // namespace modelstore::storage::rocks
