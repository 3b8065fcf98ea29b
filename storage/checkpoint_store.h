// The front door of storage: joins the parts of storage/api, whose headers describe them.
// Synchronous and thread-safe; calls may block on the disk, so that callers run them on
// a pool of their own. Nothing here knows gRPC or torch.
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

class CheckpointStore {
 public:
  // Recovers: makes catalog and chunk store consistent and deletes what a crash left.
  // Fails if the engine's catalog is damaged.
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

  // `changed` is called, from any thread, after a durable change or deletion of the
  // model with this uid; with an empty uid, any model may have changed. It must neither
  // block nor call back. Replaces the previous one; may be unset.
  virtual void WatchModels(std::function<void(absl::string_view model_uid)> changed) = 0;
};

}  // namespace modelstore::storage
