// The front door of storage: models, checkpoints, uploads, reads, maintenance.
// Synchronous and thread-safe; calls may block on the disk, so that callers run
// them on a pool of their own. Nothing here knows gRPC or torch.
//
//   auto store = CheckpointStore::Open(options, std::move(engine));
//   auto upload = (*store)->uploads().Create(...);
//   auto sink = (*store)->uploads().OpenSink("m", upload->upload_id());
//   sink->Put(digest, fragments); ... sink->Close();
//   auto record = (*store)->uploads().Commit("m", upload->upload_id(), {});
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"
#include "storage/catalog.h"
#include "storage/chunk_store.h"

namespace modelstore::storage {

namespace records = ::modelstore::storage::v1;

// A version as named by a client: its number, an alias or, with neither, the
// latest.
struct VersionName {
  VersionName() = default;
  VersionName(std::optional<int64_t> given) : number(given) {}  // NOLINT(*-explicit-*)
  VersionName(int64_t given) : number(given) {}                 // NOLINT(*-explicit-*)
  static VersionName Alias(std::string alias) {
    VersionName name;
    name.alias = std::move(alias);
    return name;
  }

  std::optional<int64_t> number;
  std::string alias;
};

template <typename T>
struct Page {
  std::vector<T> items;
  // Position to go on from; empty on the last page.
  std::string next;
};

struct Freed {
  int64_t freed_bytes = 0;    // gone from the disk
  int64_t waiting_bytes = 0;  // dead, waiting for readers, the grace time, or
                              // the rest of their pack
};

// Conditions and mode of a change.
struct ChangeOptions {
  // NOT_FOUND if the model of this name has another uid: it was deleted and created
  // again. Empty: any uid.
  std::string model_uid;
  // ABORTED if the resource's generation is another.
  std::optional<uint64_t> generation;
  // Validates and returns the result without changing anything.
  bool validate_only = false;
};

// Named lines of versions.
class Models {
 public:
  virtual ~Models() = default;
  // `model` gives model_id, digest_algorithm (0: XXH3-128), description, labels
  // and extra; the rest is filled in. ALREADY_EXISTS.
  virtual absl::StatusOr<records::ModelRecord> Create(
      const records::ModelRecord& model) = 0;
  virtual absl::StatusOr<records::ModelRecord> Get(absl::string_view model_id) = 0;
  virtual absl::StatusOr<Page<records::ModelRecord>> List(absl::string_view prefix,
                                                          absl::string_view after,
                                                          int limit) = 0;
  // Changes the fields that are set.
  struct Update {
    std::optional<std::string> description;
    std::optional<google::protobuf::Map<std::string, std::string>> labels;
    std::optional<std::string> extra;
  };
  virtual absl::StatusOr<records::ModelRecord> Change(absl::string_view model_id,
                                                      const Update& update,
                                                      const ChangeOptions& options) = 0;
  // FAILED_PRECONDITION if it has checkpoints, unless `force`; or, `force` or not,
  // if something holds one of them (names it).
  virtual absl::StatusOr<Freed> Delete(absl::string_view model_id, bool force,
                                       const ChangeOptions& options) = 0;

  // Events of a model after this generation, oldest first, at most `limit`. Each
  // change is one generation. OUT_OF_RANGE if those events have been trimmed.
  struct Event {
    uint64_t generation = 0;
    records::EventRecord record;
  };
  virtual absl::StatusOr<std::vector<Event>> Events(const records::ModelRecord& model,
                                                    uint64_t after_generation,
                                                    int limit) = 0;
};

// Committed versions.
class Checkpoints {
 public:
  virtual ~Checkpoints() = default;
  virtual absl::StatusOr<records::CheckpointRecord> Get(absl::string_view model_id,
                                                        VersionName version) = 0;
  // Without architecture and edits, which Get() has.
  virtual absl::StatusOr<Page<records::CheckpointRecord>> List(absl::string_view model_id,
                                                               bool newest_first,
                                                               absl::string_view after,
                                                               int limit) = 0;
  // Changes the fields that are set; the content never changes.
  struct Update {
    std::optional<std::string> description;
    std::optional<google::protobuf::Map<std::string, std::string>> labels;
    std::optional<bool> pinned;
    std::optional<int64_t> expire_time_us;  // 0: never
  };
  virtual absl::StatusOr<records::CheckpointRecord> Change(
      absl::string_view model_id, VersionName version, const Update& update,
      const ChangeOptions& options) = 0;
  // FAILED_PRECONDITION, naming it, if an alias, a pin or a lease holds it. Idle uploads
  // that build on it are deleted too; likewise in DeleteEach() and Models::Delete().
  virtual absl::StatusOr<Freed> Delete(absl::string_view model_id, int64_t version,
                                       const ChangeOptions& options) = 0;
  struct Deletions {
    std::vector<int64_t> deleted;
    // Kept by an alias, a pin or a lease.
    std::vector<int64_t> held;
    // Kept because they are not as they were seen.
    std::vector<int64_t> changed;
    Freed freed;
  };
  // A version as the caller has seen it.
  struct SeenVersion {
    int64_t version = 0;
    uint64_t generation = 0;
  };
  // Deletes those of `versions` that nothing holds and that have not changed since,
  // each in its own batch. NOT_FOUND once the model of this uid is gone. `go_on` is
  // called before each; if it returns false: CANCELLED. An error's message says how
  // many versions are already deleted and names the first ten.
  virtual absl::StatusOr<Deletions> DeleteEach(const records::ModelRecord& model,
                                               absl::Span<const SeenVersion> versions,
                                               bool validate_only,
                                               const std::function<bool()>& go_on) = 0;
  // Pages of the manifest in order; the tensor table goes on from page to page.
  // NOT_FOUND beyond the last.
  virtual absl::StatusOr<records::ManifestPage> ReadManifestPage(
      const records::CheckpointRecord& checkpoint, uint32_t page) = 0;
};

// Names that move from version to version.
class Aliases {
 public:
  virtual ~Aliases() = default;
  struct Alias {
    std::string alias;
    int64_t version = 0;
    records::AliasRecord record;
  };
  struct Move {
    std::string alias;
    int64_t version = 0;  // 0: deletes the alias
    // ABORTED if the alias names another one now; 0: if it exists.
    std::optional<int64_t> expected_version;
    std::string note;
    std::string mover;
    bool validate_only = false;
    // See ChangeOptions.
    std::string model_uid;
    // Identifies this move: a repeated one succeeds and changes nothing, even if the
    // alias was moved again since. Kept for the last 256 moves of the model.
    std::string request_id;
  };
  // Creates, moves or deletes an alias and adds the move to the history. If the alias
  // already names the version, nothing changes; the move is added to the history only
  // if it has a request_id.
  virtual absl::StatusOr<Alias> Set(absl::string_view model_id, const Move& move) = 0;
  // By name.
  virtual absl::StatusOr<Page<Alias>> List(absl::string_view model_id,
                                           absl::string_view after, int limit) = 0;
  // The history, newest first; of one alias unless empty.
  virtual absl::StatusOr<Page<records::AliasMoveRecord>> ListMoves(
      absl::string_view model_id, absl::string_view alias, absl::string_view after,
      int limit) = 0;
};

// Prevents deletion of versions for a time.
class Leases {
 public:
  virtual ~Leases() = default;
  struct Lease {
    int64_t version = 0;
    std::string holder;
    records::LeaseRecord record;
  };
  // By the same holder: renews. RESOURCE_EXHAUSTED where too many hold it.
  virtual absl::StatusOr<Lease> Acquire(absl::string_view model_id, VersionName version,
                                        absl::string_view holder,
                                        absl::Duration time_to_live,
                                        absl::string_view model_uid = {}) = 0;
  // NOT_FOUND if the holder has none, or it has expired.
  virtual absl::Status Release(absl::string_view model_id, int64_t version,
                               absl::string_view holder,
                               absl::string_view model_uid = {}) = 0;
  // Those that have not expired, by version and holder; of one version if given.
  virtual absl::StatusOr<Page<Lease>> List(absl::string_view model_id,
                                           std::optional<VersionName> version,
                                           absl::string_view after, int limit) = 0;
};

// Receives the chunks of one stream of an upload. Used by one thread at a time. The
// destructor calls Close() and ignores its status.
class ChunkSink {
 public:
  virtual ~ChunkSink() = default;

  // Takes a chunk whose bytes are the concatenation of `fragments`. Checks the
  // digest (INVALID_ARGUMENT if it differs); an absent one is computed. A chunk
  // that the upload or its base already holds is dropped.
  // RESOURCE_EXHAUSTED when the disk is full: what was taken before stays.
  virtual absl::StatusOr<Digest> Put(const std::optional<Digest>& digest,
                                     absl::Span<const absl::string_view> fragments) = 0;

  // Seals what this sink wrote. Afterwards it outlives a restart.
  virtual absl::Status Close() = 0;

  struct Counts {
    int64_t chunks = 0;
    int64_t bytes = 0;
    int64_t duplicate_bytes = 0;
  };
  virtual Counts counts() const = 0;
};

// Target, metadata and identity of a save.
struct SaveRequest {
  std::string model_id;
  bool create_model = false;
  records::CheckpointMetadata metadata;
  // Absent: the model's latest at this moment. `no_base`: none.
  std::optional<std::string> base_model_id;
  std::optional<VersionName> base_version;
  bool no_base = false;
  std::string request_id;
  // Digest of the request's canonical bytes, computed by the caller.
  std::string request_digest;
};

// One part of a manifest as a client sent it: pieces carry digests, and no
// packs. A piece without digests is allowed in a OneShotSave alone.
using ManifestPart = records::ManifestPage;

// A save in one stream that cannot be resumed: SaveCheckpoint. A small one stays in
// memory until Commit() and costs one sync; a larger one writes packs as chunks
// arrive. Used by one thread at a time. If it is destroyed before its commit, nothing
// remains.
class OneShotSave {
 public:
  virtual ~OneShotSave() = default;
  virtual absl::Status AddManifest(const ManifestPart& part) = 0;
  // See ChunkSink. Chunks without digest fill the manifest's pieces in order.
  virtual absl::Status Put(const std::optional<Digest>& digest,
                           absl::Span<const absl::string_view> fragments) = 0;
  // INVALID_ARGUMENT without tensors, sections, attachments and architecture, unless
  // `allow_empty`.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) = 0;
};

class Read;

// A version made of chunks of existing checkpoints, which are not copied, and of new
// chunks: the commit of a copy or a modification. Its sources are held while it lives
// and may be deleted before or after its commit. If it is destroyed before its commit,
// nothing remains.
class DerivedSave {
 public:
  virtual ~DerivedSave() = default;
  // A new chunk, at most kMaxChunkBytes; dropped where a source has it already.
  // Thread-safe. RESOURCE_EXHAUSTED when the disk is full.
  virtual absl::StatusOr<Digest> Put(absl::string_view bytes) = 0;
  // Once no Put() runs. The whole manifest; each digest is a source's or was put:
  // FAILED_PRECONDITION, naming the tensors, otherwise.
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      ManifestPart manifest, std::optional<int64_t> expected_latest_version) = 0;
};

struct UploadState {
  records::UploadRecord record;
  struct Contribution {
    uint32_t index = 0;
    bool complete = false;
    int64_t tensor_count = 0;
  };
  std::vector<Contribution> contributions;
  int64_t sealed_bytes = 0;
  int64_t received_bytes = 0;
  // See StoreOptions::upload_min_idle.
  bool idle = false;
};

// Unfinished saves. Every call that names an upload prolongs its life.
class Uploads {
 public:
  virtual ~Uploads() = default;
  // The same request_id returns the same upload (or one with committed_version
  // set, if the version exists already); INVALID_ARGUMENT if request_digest
  // differs. At a limit, of the model or in all, deletes the upload that was idle for
  // longest; overloaded if none is idle.
  virtual absl::StatusOr<records::UploadRecord> Create(const SaveRequest& request,
                                                       uint32_t contribution_count,
                                                       absl::Duration time_to_live) = 0;
  virtual absl::StatusOr<UploadState> Get(absl::string_view model_id,
                                          absl::string_view upload_id) = 0;
  // An empty model_id lists those of all models.
  virtual absl::StatusOr<Page<UploadState>> List(absl::string_view model_id,
                                                 absl::string_view after, int limit) = 0;
  virtual absl::Status Delete(absl::string_view model_id,
                              absl::string_view upload_id) = 0;
  // Positions in `digests` (concatenated) of those that neither the upload nor
  // its base holds.
  virtual absl::StatusOr<std::vector<uint32_t>> FindMissing(
      absl::string_view model_id, absl::string_view upload_id,
      absl::string_view digests) = 0;
  // The same against a committed checkpoint.
  virtual absl::StatusOr<std::vector<uint32_t>> FindMissingIn(
      const records::CheckpointRecord& checkpoint, absl::string_view digests) = 0;
  // `begin` drops what the contribution had; `complete` ends it.
  virtual absl::Status AddManifest(absl::string_view model_id,
                                   absl::string_view upload_id, uint32_t contribution,
                                   const ManifestPart& part, bool begin,
                                   bool complete) = 0;
  virtual absl::StatusOr<std::unique_ptr<ChunkSink>> OpenSink(
      absl::string_view model_id, absl::string_view upload_id) = 0;
  // See OneShotSave::Commit().
  virtual absl::StatusOr<records::CheckpointRecord> Commit(
      absl::string_view model_id, absl::string_view upload_id,
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) = 0;
  virtual absl::StatusOr<std::unique_ptr<OneShotSave>> StartOneShot(
      const SaveRequest& request) = 0;
  // The first source becomes base_checkpoint and replaces the one of the request. A
  // repeated request with the same id and request_digest returns the first's version.
  // INVALID_ARGUMENT if a source's model has another digest algorithm.
  virtual absl::StatusOr<std::unique_ptr<DerivedSave>> StartDerived(
      const SaveRequest& request, std::vector<std::shared_ptr<Read>> sources) = 0;
  // The version that an earlier request with this id has committed; absent if there
  // is none or it was deleted. INVALID_ARGUMENT if request_digest differs.
  virtual absl::StatusOr<std::optional<records::CheckpointRecord>> FindRequested(
      absl::string_view model_id, absl::string_view request_id,
      absl::string_view request_digest) = 0;
};

// A checkpoint opened for reading. Its bytes stay readable. Thread-safe.
class Read {
 public:
  virtual ~Read() = default;
  virtual const records::CheckpointRecord& checkpoint() const = 0;
  virtual const records::ModelRecord& model() const = 0;
  // The whole table, in manifest order, sections and attachments after it.
  virtual const records::ManifestPage& manifest() const = 0;
  // Reads chunk `index` of a piece of tensor `tensor` of manifest(), and checks
  // its digest: DATA_LOSS naming the tensor if it differs or is gone.
  virtual absl::StatusOr<PinnedBytes> ReadChunk(int tensor, int piece, int64_t index) = 0;
};

class Reads {
 public:
  virtual ~Reads() = default;
  virtual absl::StatusOr<std::shared_ptr<Read>> Open(absl::string_view model_id,
                                                     VersionName version) = 0;
  // A token for Reopen(). Valid until the grace time after the last Read of the
  // checkpoint is destroyed, and not after a restart.
  virtual std::string Token(const Read& read) = 0;
  // FAILED_PRECONDITION if the token has expired.
  virtual absl::StatusOr<std::shared_ptr<Read>> Reopen(absl::string_view token) = 0;
};

struct GarbageResult {
  int64_t dropped_packs = 0;
  int64_t expired_uploads = 0;
  int64_t freed_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t reclaimable_bytes = 0;
};

struct StoreStats {
  int64_t model_count = 0;
  int64_t checkpoint_count = 0;
  int64_t open_upload_count = 0;
  int64_t pack_count = 0;
  int64_t pack_bytes = 0;
  int64_t reclaimable_bytes = 0;
  int64_t waiting_bytes = 0;
  int64_t disk_free_bytes = 0;
  int64_t reserved_bytes = 0;
  int64_t reopen_count = 0;
  // Chunks known to be damaged or gone, including those of lost packs.
  int64_t damaged_chunks = 0;
};

class Maintenance {
 public:
  virtual ~Maintenance() = default;
  // `progress(checked, total)` returns false to stop.
  virtual absl::StatusOr<GarbageResult> CollectGarbage(
      bool validate_only, const std::function<bool(int64_t, int64_t)>& progress) = 0;
  virtual absl::StatusOr<StoreStats> Stats() = 0;
  // Reopens an engine that a fault has closed, if one has. Called periodically
  // and after an undecided commit.
  virtual absl::Status Heal() = 0;
};

// Receives events of storage. Called from any thread; must not call back.
class Listener {
 public:
  enum class Severity { kInfo, kWarning, kError };
  virtual ~Listener() = default;
  virtual void OnEvent(Severity severity, absl::string_view message) = 0;
};

// The two interfaces of one engine, and the disk they share.
struct Engine {
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<ChunkStore> chunks;
  // Free bytes of the disk; unset means without bound.
  std::function<absl::StatusOr<int64_t>()> free_bytes;
  // Frees the ballast, so that a delete or reopen has room, and allocates it again
  // when there is room. Either may be unset.
  std::function<void()> release_ballast;
  std::function<void()> restore_ballast;
};

struct StoreOptions {
  // Size at which a pack is sealed.
  int64_t pack_bytes = int64_t{256} << 20;
  // An upload opens a second pack only once its first holds this much.
  int64_t second_pack_bytes = int64_t{64} << 20;
  // Number of small packs (less than an eighth of pack_bytes) that are merged.
  size_t merge_packs = 16;
  // Kept free on the disk; saves are refused below it.
  int64_t reserve_bytes = int64_t{256} << 20;
  // How long the bytes of a deleted checkpoint stay readable for resumed loads.
  absl::Duration grace = absl::Seconds(60);
  absl::Duration default_upload_ttl = absl::Hours(24);
  // No expiry for this long after startup.
  absl::Duration start_grace = absl::Minutes(10);
  int max_open_uploads = 1024;
  int max_open_uploads_per_model = 64;
  // An upload unused by calls and streams for this long is idle: it is deleted when a
  // new one exceeds either limit, and when its base is deleted.
  absl::Duration upload_min_idle = absl::Minutes(10);
  // The wall clock, for times that are shown. Both clocks are injected by tests.
  std::function<absl::Time()> now = absl::Now;
  // Time since an arbitrary moment; unaffected by steps of the wall clock. Used for
  // all expiry.
  std::function<absl::Duration()> steady_now = [] {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  };
  Listener* listener = nullptr;  // Not owned; may be null.
};

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
  virtual Uploads& uploads() = 0;
  virtual Reads& reads() = 0;
  virtual Maintenance& maintenance() = 0;

  // `changed` is called, from any thread, after a durable change or deletion of the
  // model with this uid; with an empty uid, any model may have changed. It must neither
  // block nor call back. Replaces the previous one; may be unset.
  virtual void WatchModels(std::function<void(absl::string_view model_uid)> changed) = 0;
};

}  // namespace modelstore::storage
