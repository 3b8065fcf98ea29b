// A small store over the embedded engine, one operation on it, and the check of
// what must be true of it whenever and however that operation was interrupted.
//
//   Scenario scenario(folder);                  // makes the store, once
//   for (const Operation& operation : Operations()) {
//     CopyFolder(scenario.folder(), copy);
//     ... open `copy` with a file system that hurts, operation.run(store) ...
//     scenario.Check(copy, operation, acknowledged);
//   }
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/checkpoint_store.h"

namespace rocksdb {
class FileSystem;
}

namespace modelstore::storage {

// The one model of the store.
inline constexpr char kScenarioModel[] = "m";

// The bytes of a checkpoint: tensors of uint8, cut into chunks.
struct Content {
  std::map<std::string, std::vector<std::string>> tensors;

  // `chunks` chunks of `chunk_bytes` each, over two tensors.
  static Content Of(uint64_t seed, int chunks, size_t chunk_bytes);
  ManifestPart Manifest() const;
  std::vector<std::string> Chunks() const;
};

// What the store knows when the operation begins.
struct Known {
  std::map<int64_t, Content> versions;
  std::string upload_id;
  // Sealed by that upload.
  std::vector<std::string> sealed;
};

// One thing that a client asks for.
struct Operation {
  std::string name;
  std::function<absl::Status(CheckpointStore&, const Known&)> run;
  // The version that it makes has this content.
  std::optional<Content> adds = std::nullopt;
  // Versions that it deletes.
  std::set<int64_t> deletes = {};
  // It ends the open upload.
  bool ends_upload = false;
  // It moves the alias `production` there from version 3.
  std::optional<int64_t> moves_to = std::nullopt;
  // It takes a lease of version 1.
  bool leases = false;
  // It may be asked for again after a failure, and must then succeed.
  bool repeatable = true;
};

// A save by upload, a save in one stream (small, and too large for memory), the
// seal of one more stream, the commit alone, a delete, a sweep that copies forward
// what is left, a merge of packs, the end of an upload, a copy, a move of an alias, a
// lease.
std::vector<Operation> Operations();
Operation OperationNamed(const std::string& name);

StoreOptions SmallStoreOptions();
absl::StatusOr<std::unique_ptr<CheckpointStore>> OpenStore(
    const std::string& folder, std::shared_ptr<rocksdb::FileSystem> file_system = nullptr,
    int64_t ballast_bytes = int64_t{1} << 20, bool accept_data_loss = false,
    Listener* listener = nullptr);

class Scenario {
 public:
  // Makes a store of three versions, the last aliased, and an open upload in
  // `folder`.
  explicit Scenario(std::string folder);

  const std::string& folder() const { return folder_; }
  const Known& known() const { return known_; }

  // Opens the store in `folder`, after `operation` ran there, wholly
  // (`acknowledged`) or in part. The first promise that is broken, or OK. Changes
  // the store: deletes everything in the end, and looks for what is left.
  absl::Status Check(const std::string& folder, const Operation& operation,
                     bool acknowledged) const;
  // The part that leaves the store as it is.
  absl::Status CheckContent(CheckpointStore& store, const Operation& operation,
                            bool acknowledged) const;

 private:
  absl::Status CheckUpload(CheckpointStore& store, const Operation& operation,
                           bool acknowledged) const;
  absl::Status CheckHolds(CheckpointStore& store, const Operation& operation,
                          bool acknowledged) const;
  absl::Status CheckSpace(CheckpointStore& store, const std::string& folder) const;
  absl::Status CheckEmptyCatalog(const std::string& folder) const;

  const std::string folder_;
  Known known_;
};

absl::Status VerifyVersion(CheckpointStore& store, int64_t version,
                           const Content& content);

}  // namespace modelstore::storage
