// What happens to a version after it was saved: names that move, leases, copies, and
// watching all of it.
//
//   auto moved =
//       modelstore::SetAlias(client, "models/iris/aliases/production", 12,
//                            {.expected_version = 11, .note = "accuracy 0.97"});
//   auto watcher = modelstore::ModelWatcher::Open(client, "models/iris");
//   while (auto event = watcher->Next(modelstore::After(std::chrono::minutes(1)))) {...}
//
// An alias stands for its version wherever a name is loaded:
// `models/iris/checkpoints/production`.
//
// Thread safety: as Client, but for ModelWatcher, which belongs to one thread.
// Errors: INVALID_ARGUMENT names the field, NOT_FOUND the resource; ABORTED where a
// version is not the expected one. PyTorch has none of this: there, people rename files.
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

// A name that moves from version to version. The version it names is neither
// deleted nor pruned.
struct AliasInfo {
  std::string name;  // `models/{model}/aliases/{alias}`
  int64_t version = 0;
  std::string note;
  std::chrono::system_clock::time_point update_time;
};

// One entry of the history; kept also when alias and versions are gone.
struct AliasMove {
  std::string alias;                    // its id, without the model
  std::optional<int64_t> from_version;  // absent: it was made
  std::optional<int64_t> to_version;    // absent: it was deleted
  std::string note;
  std::string mover;  // where there is authentication
  std::chrono::system_clock::time_point move_time;
};

struct SetAliasOptions {
  // Moves it only from there, else ABORTED.
  std::optional<int64_t> expected_version = {};
  // Makes it only if it does not exist, else ABORTED. Not with expected_version.
  bool create_only = false;
  // Kept in the history.
  std::string note = {};
  std::optional<Deadline> deadline = {};
};

struct DeleteAliasOptions {
  // Deletes it only from there, else ABORTED.
  std::optional<int64_t> expected_version = {};
  // Kept in the history.
  std::string note = {};
  std::optional<Deadline> deadline = {};
};

// `name` is `models/{model}/aliases/{alias}`. One that names the version already stays
// as it is; history and watchers get an entry all the same.
[[nodiscard]] absl::StatusOr<AliasInfo> SetAlias(const Client& client,
                                                 std::string_view name, int64_t version,
                                                 const SetAliasOptions& options = {});
absl::Status DeleteAlias(const Client& client, std::string_view name,
                         const DeleteAliasOptions& options = {});
// By name. `parent` is `models/{model}`.
Listing<AliasInfo> ListAliases(const Client& client, std::string_view parent,
                               const CallOptions& options = {});

struct ListAliasMovesOptions {
  std::string alias = {};  // its id; empty: of all aliases
  int limit = 0;           // 0: all
  std::optional<Deadline> deadline = {};
};
// Newest first. `parent` is `models/{model}`.
Listing<AliasMove> ListAliasMoves(const Client& client, std::string_view parent,
                                  const ListAliasMovesOptions& options = {});

// Keeps a version from being deleted until it expires. One per version and holder.
struct LeaseInfo {
  std::string name;        // `models/{model}/checkpoints/{version}/leases/{holder}`
  std::string checkpoint;  // `models/{model}/checkpoints/{version}`
  std::string holder;
  std::chrono::system_clock::time_point expire_time;
  std::chrono::system_clock::time_point create_time;  // of its first acquisition
};

// `checkpoint` may end in an alias or `latest`; the answer names the version: renew
// by that, at a third of the time. 1 s to 30 days. By the same holder it renews.
// `holder` is such as `serving-7` or `trainer@host:4711`:
// [a-zA-Z0-9][a-zA-Z0-9._:@-]{0,127}.
[[nodiscard]] absl::StatusOr<LeaseInfo> AcquireLease(const Client& client,
                                                     std::string_view checkpoint,
                                                     std::string_view holder,
                                                     Timeout time_to_live,
                                                     const CallOptions& options = {});
// `name` is LeaseInfo::name.
absl::Status ReleaseLease(const Client& client, std::string_view name,
                          const CallOptions& options = {});

// By version, then holder; expired ones are left out. `parent` is `models/{model}`, or
// `models/{model}/checkpoints/{version}`.
Listing<LeaseInfo> ListLeases(const Client& client, std::string_view parent,
                              const CallOptions& options = {});

struct CopyOptions {
  bool create_model = true;
  // Of the copy. Epoch, step, loss and metrics that are absent are the source's, as is
  // everything else; labels and description never are.
  CheckpointMetadata metadata = {};
  // The same id never makes two versions. Empty: the library makes one.
  std::string request_id = {};
  // Of the destination; see SaveOptions.
  std::optional<int64_t> expected_latest_version = {};
  bool expect_no_version = false;
  std::optional<Deadline> deadline = {};
};
// Copies a version into a model, the same or another, as its next version. The
// chunks are shared: no tensor byte is read or written, and either side may be
// deleted without hurting the other.
[[nodiscard]] absl::StatusOr<CheckpointInfo> CopyCheckpoint(
    const Client& client, std::string_view source, std::string_view parent,
    const CopyOptions& options = {});

// What a watcher is told. modelstore.v1.WatchModelResponse tells each kind.
struct ModelEvent {
  enum class Kind : uint8_t {
    kState,         // model: as it is; the first event, and after too long a pause
    kCommitted,     // checkpoint: a new version
    kUpdated,       // checkpoint: its labels, description, pin or expiry
    kDeleted,       // version
    kAliasMoved,    // alias_move
    kModelUpdated,  // model
    kModelDeleted,  // nothing follows
  };
  Kind kind = Kind::kState;
  ModelInfo model;
  CheckpointInfo checkpoint;
  int64_t version = 0;
  AliasMove alias_move;
};

struct WatchOptions {
  // Of an earlier watcher, also of another process: goes on from there. Empty: the
  // present state comes first.
  std::string cursor = {};
};

// Hears of every change of a model, in order, within milliseconds. Where the
// connection is cut or the server restarts it comes back with its cursor and misses
// nothing. Move-only; used by one thread at a time; holds none of its own.
class ModelWatcher {
 public:
  // The server is reached by Next().
  static absl::StatusOr<ModelWatcher> Open(const Client& client, std::string_view name,
                                           const WatchOptions& options = {});
  ModelWatcher(ModelWatcher&&) noexcept;
  ModelWatcher& operator=(ModelWatcher&&) noexcept;
  ~ModelWatcher();

  // Waits for the next event. DEADLINE_EXCEEDED: none came, ask again. OUT_OF_RANGE:
  // the model was deleted, and this was told. NOT_FOUND, or INVALID_ARGUMENT for a
  // cursor of another model. UNAVAILABLE: the server could not be reached for
  // ConnectOptions.retry_timeout.
  absl::StatusOr<ModelEvent> Next(Deadline deadline);
  // Where it stands once the last event is handled.
  const std::string& cursor() const;

 private:
  struct State;
  explicit ModelWatcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace modelstore
