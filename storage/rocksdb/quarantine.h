// Where a store keeps what it gave up when its operator accepted a loss.
//
// Each accepted loss has a folder of its own, quarantine/{time}/: the catalog as it was
// found, its HIGH_WATER, and the packs that no catalog names any more. The store deletes
// nothing in it; README.txt says how to bring it back. Beside these folders lie packs
// that could not be taken in (DropPacks() deletes quarantine/{pack}.sst once nothing
// names the pack).
//
// A loss is open from the moment the catalog is replaced until the packs have been
// compared with the new catalog. The file SALVAGE names the folder meanwhile, so that a
// crash in between costs no pack.
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

  // Finds a loss that a crash left open.
  absl::Status Load() EXCLUDES(mutex_);

  // The folder of the open loss; empty if there is none.
  std::string folder() const EXCLUDES(mutex_);

  // Opens a loss, durably; goes on with one that is open.
  absl::Status Begin(absl::string_view why) EXCLUDES(mutex_);
  // Moves the folder `path` into the open loss, as `name` or, if that is taken, with a
  // number behind it. The caller syncs the folder that it leaves.
  absl::Status TakeFolder(const std::string& path, const std::string& name);
  // Gives a pack's file a second name in the open loss, durably: the caller deletes the
  // first. `kept` is the new one, with a number where another file of the pack is kept.
  absl::Status KeepPack(const std::string& path, uint64_t pack, std::string* kept);
  // Ends the open loss.
  absl::Status End() EXCLUDES(mutex_);

 private:
  std::string marker() const { return store_ + "/SALVAGE"; }

  const std::shared_ptr<rocksdb::FileSystem> fs_;
  const std::string store_;
  mutable Mutex mutex_;
  std::string folder_ GUARDED_BY(mutex_);
};

// Copies a file, synced. `bytes` of it, or all.
rocksdb::IOStatus CopyBytes(rocksdb::FileSystem* fs, const std::string& from,
                            const std::string& to, uint64_t bytes = UINT64_MAX);
// Copies a file by way of `draft`: `to` is whole, or does not exist.
rocksdb::IOStatus CopyWhole(rocksdb::FileSystem* fs, const std::string& from,
                            const std::string& draft, const std::string& to);
// The first of `path`, `path` with -2, -3 ... behind its stem, that does not exist.
std::string FreeName(rocksdb::FileSystem* fs, const std::string& path);
// A second name for a file that nobody writes to; a copy where links are not possible.
rocksdb::IOStatus LinkOrCopyFile(rocksdb::FileSystem* fs, const std::string& from,
                                 const std::string& to);
// Deletes the files of a folder, and the folder.
rocksdb::IOStatus DeleteFolder(rocksdb::FileSystem* fs, const std::string& path);

}  // namespace modelstore::storage::rocks
