// Managing versions after a save: aliases, leases, copies, and watching a model for
// changes.
//
//   auto moved =
//       modelstore::SetAlias(client, "models/iris/aliases/production", 12,
//                            {.expected_version = 11, .note = "accuracy 0.97"});
//   auto watcher = modelstore::ModelWatcher::Open(client, "models/iris");
//   while (auto event = watcher->Next(modelstore::After(std::chrono::minutes(1)))) {...}
//
// An alias can be used in place of a version when loading:
// `models/iris/checkpoints/production`.
//
// Thread safety: as Client, except ModelWatcher, which is used by one thread at a time.
// Errors: INVALID_ARGUMENT names the field, NOT_FOUND the resource; ABORTED if the
// version is not the expected one.
// Retries: every call here is safe to repeat and is repeated on UNAVAILABLE until
// ConnectOptions.retry_timeout.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/client.h"

namespace modelstore {

// A movable name of a version. A version with an alias is neither deleted nor pruned.
struct AliasInfo {
  std::string name;  // `models/{model}/aliases/{alias}`
  int64_t version = 0;
  std::string note;
  std::chrono::system_clock::time_point update_time;
};

// One entry of the alias history, which outlives the alias and its versions.
struct AliasMove {
  std::string alias;                    // its id, without the model
  std::optional<int64_t> from_version;  // absent: the alias was created
  std::optional<int64_t> to_version;    // absent: the alias was deleted
  std::string note;
  std::string mover;  // who moved it; empty without authentication
  std::chrono::system_clock::time_point move_time;
};

struct SetAliasOptions {
  // Moves the alias only if it names this version; ABORTED otherwise.
  std::optional<int64_t> expected_version = {};
  // Creates the alias only if it does not exist; ABORTED otherwise. Not together with
  // expected_version.
  bool create_only = false;
  // Kept in the history.
  std::string note = {};
  std::optional<Deadline> deadline = {};
};

struct DeleteAliasOptions {
  // Deletes the alias only if it names this version; ABORTED otherwise.
  std::optional<int64_t> expected_version = {};
  // Kept in the history.
  std::string note = {};
  std::optional<Deadline> deadline = {};
};

// Creates an alias or moves it to `version`. `name` is `models/{model}/aliases/{alias}`.
// Setting an alias to its present version still adds an entry to the history and an event
// for watchers. ABORTED if a condition in `options` does not hold; RESOURCE_EXHAUSTED if
// the model has 1000 aliases.
[[nodiscard]] absl::StatusOr<AliasInfo> SetAlias(const Client& client,
                                                 std::string_view name, int64_t version,
                                                 const SetAliasOptions& options = {});
// Deletes an alias; its version stays. `name` is `models/{model}/aliases/{alias}`.
absl::Status DeleteAlias(const Client& client, std::string_view name,
                         const DeleteAliasOptions& options = {});
// Lists aliases, ordered by name. `parent` is `models/{model}`.
Listing<AliasInfo> ListAliases(const Client& client, std::string_view parent,
                               const CallOptions& options = {});

struct ListAliasMovesOptions {
  std::string alias = {};  // id of one alias; empty: all aliases
  int limit = 0;           // maximum number of entries; 0: all
  std::optional<Deadline> deadline = {};
};
// Lists the alias history, newest first. `parent` is `models/{model}`.
Listing<AliasMove> ListAliasMoves(const Client& client, std::string_view parent,
                                  const ListAliasMovesOptions& options = {});

// Prevents deletion of a version until the lease expires. A holder has at most one lease
// on a version.
struct LeaseInfo {
  std::string name;        // `models/{model}/checkpoints/{version}/leases/{holder}`
  std::string checkpoint;  // `models/{model}/checkpoints/{version}`
  std::string holder;
  std::chrono::system_clock::time_point expire_time;
  std::chrono::system_clock::time_point create_time;  // of its first acquisition
};

// Acquires a lease, or renews it if `holder` already has one. `checkpoint` may end in an
// alias or `latest`; renew by LeaseInfo::checkpoint, which has the version, because the
// alias may have moved. Renew after a third of `time_to_live`, which is 1 s to 30 days.
// `holder` is an id such as `serving-7` or `trainer@host:4711`:
// [a-zA-Z0-9][a-zA-Z0-9._:@-]{0,127}. RESOURCE_EXHAUSTED if 1000 others hold the version.
[[nodiscard]] absl::StatusOr<LeaseInfo> AcquireLease(const Client& client,
                                                     std::string_view checkpoint,
                                                     std::string_view holder,
                                                     Timeout time_to_live,
                                                     const CallOptions& options = {});
// Ends a lease before it expires. `name` is LeaseInfo::name. NOT_FOUND if it has ended.
absl::Status ReleaseLease(const Client& client, std::string_view name,
                          const CallOptions& options = {});

// Lists leases that have not expired, ordered by version, then holder. `parent` is
// `models/{model}` or `models/{model}/checkpoints/{version}`.
Listing<LeaseInfo> ListLeases(const Client& client, std::string_view parent,
                              const CallOptions& options = {});

struct CopyOptions {
  // Creates the destination model if it does not exist.
  bool create_model = true;
  // Metadata of the copy. Epoch, step, loss and metrics are copied from the source where
  // absent here; labels and description are not copied.
  CheckpointMetadata metadata = {};
  // Makes the call idempotent: see SaveOptions. Empty: the library generates one.
  std::string request_id = {};
  // Conditions on the destination model: see SaveOptions.
  std::optional<int64_t> expected_latest_version = {};
  bool expect_no_version = false;
  std::optional<Deadline> deadline = {};
};
// Copies version `source` as the next version of model `parent`, which may be the same or
// another model. The chunks are shared: no tensor data is read or written. Either version
// can be deleted without affecting the other. NOT_FOUND for the source, or for the
// destination unless create_model; DATA_LOSS if chunks of the source are damaged.
[[nodiscard]] absl::StatusOr<CheckpointInfo> CopyCheckpoint(
    const Client& client, std::string_view source, std::string_view parent,
    const CopyOptions& options = {});

// A change of a model. `kind` determines which field is set.
struct ModelEvent {
  enum class Kind : uint8_t {
    // model: its present state. The first event without a cursor; also sent after a pause
    // so long that events in between are no longer known.
    kState,
    kCommitted,     // checkpoint: a new version
    kUpdated,       // checkpoint: its labels, description, pin or expiry
    kDeleted,       // version
    kAliasMoved,    // alias_move
    kModelUpdated,  // model
    kModelDeleted,  // the last event
  };
  Kind kind = Kind::kState;
  ModelInfo model;
  CheckpointInfo checkpoint;
  int64_t version = 0;
  AliasMove alias_move;
};

struct WatchOptions {
  // ModelWatcher::cursor() of an earlier watcher, also of another process: continues
  // after its last event. Empty: starts with the present state.
  std::string cursor = {};
};

// Receives every change of a model, in order, within milliseconds. After a broken
// connection or a restart of the server it reconnects and misses no event. Move-only;
// used by one thread at a time; starts no thread.
class ModelWatcher {
 public:
  // Does not contact the server; Next() does. `name` is `models/{model}`.
  static absl::StatusOr<ModelWatcher> Open(const Client& client, std::string_view name,
                                           const WatchOptions& options = {});
  ModelWatcher(ModelWatcher&&) noexcept;
  ModelWatcher& operator=(ModelWatcher&&) noexcept;
  ~ModelWatcher();

  // Waits for the next event. Errors:
  //   DEADLINE_EXCEEDED  no event arrived; call again
  //   OUT_OF_RANGE       kModelDeleted was already returned
  //   NOT_FOUND          no such model
  //   INVALID_ARGUMENT   the cursor belongs to another model
  //   UNAVAILABLE        the server was unreachable for ConnectOptions.retry_timeout
  absl::StatusOr<ModelEvent> Next(Deadline deadline);
  // The position after the last event that Next() returned. Store it once that event is
  // handled.
  const std::string& cursor() const;

 private:
  struct State;
  explicit ModelWatcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace modelstore
