// The front door of storage: joins the parts of storage/api, whose headers describe them.
// Synchronous and thread-safe. Calls may block on the disk, so callers run them on a
// thread pool of their own. Nothing here depends on gRPC or torch.
//
//   auto store = CheckpointStore::Open(options, std::move(engine));
//   auto record = (*store)->uploads().Create(...);
//   auto upload = (*store)->uploads().Open("m", record->upload_id());
//   auto sink = (*upload)->OpenSink();
//   (*sink)->Put(digest, fragments); ... (*sink)->Close();
//   auto checkpoint = (*upload)->Commit({});
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/api/aliases.h"
#include "storage/api/checkpoints.h"
#include "storage/api/leases.h"
#include "storage/api/maintenance.h"
#include "storage/api/models.h"
#include "storage/api/reads.h"
#include "storage/api/saves.h"
#include "storage/api/store_options.h"
#include "storage/api/uploads.h"
#include "storage/engine.h"

namespace modelstore::storage {

// Owns its engine. Whatever it returns must be destroyed before it; no call may run while
// it is destroyed.
class CheckpointStore {
 public:
  // Opens a store. Makes catalog and chunk store consistent and deletes what a crash left
  // behind. Fails if the engine's catalog is damaged, or was written in a later format.
  static absl::StatusOr<std::unique_ptr<CheckpointStore>> Open(StoreOptions options,
                                                               Engine engine);
  virtual ~CheckpointStore() = default;

  virtual Models& models() = 0;
  virtual Checkpoints& checkpoints() = 0;
  virtual Aliases& aliases() = 0;
  virtual Leases& leases() = 0;
  virtual Saves& saves() = 0;
  virtual Uploads& uploads() = 0;
  virtual Reads& reads() = 0;
  virtual Maintenance& maintenance() = 0;

  // Sets the function to call after each durable change or deletion of a model, with the
  // model's uid; an empty uid means that any model may have changed. It is called from
  // any thread and must neither block nor call the store. Replaces the previous function;
  // may be unset.
  virtual void WatchModels(std::function<void(absl::string_view model_uid)> changed) = 0;
};

}  // namespace modelstore::storage
