#include <algorithm>
#include <map>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "storage/garbage/collector.h"
#include "storage/keys.h"
#include "storage/parts.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/save/committed_uploads.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Attempts of a creation that loses to other changes of the model; delay that a client is
// asked to wait at a limit.
constexpr int kMaxAttempts = 1000;
constexpr int kUploadLimitDelayMs = 2000;

// The open uploads of the store, in memory, and access to the committed ones. Lock order:
// `create_mutex_` before `mutex_` and before an upload's mutex. `mutex_` guards only the
// table: no other lock is taken while it is held.
class StoredUploads final : public UploadTable {
 public:
  StoredUploads(StoreCore* core, Collector* collector)
      : core_(*core), collector_(*collector), committed_(core) {}

  absl::StatusOr<v1::UploadRecord> Create(const SaveRequest& request,
                                          uint32_t contribution_count,
                                          absl::Duration time_to_live) override;

  absl::StatusOr<std::shared_ptr<Upload>> Open(absl::string_view model_id,
                                               absl::string_view upload_id) override;
  absl::StatusOr<Page<UploadState>> List(absl::string_view model_id,
                                         absl::string_view after, int limit) override;
  void DeleteIdle(absl::string_view base_model_uid,
                  const absl::flat_hash_set<int64_t>& base_versions) override;

  void Ended(OpenUpload& upload) override;
  absl::StatusOr<std::shared_ptr<Upload>> OpenCommitted(
      absl::string_view model_id, absl::string_view upload_id) override {
    return committed_.Open(model_id, upload_id);
  }
  void Restore(std::shared_ptr<OpenUpload> upload) override { Insert(std::move(upload)); }
  int64_t SweepExpired(absl::Time now) override;
  void DeleteOfModel(absl::string_view model_uid) override;
  int64_t open_count() override;

 private:
  using Pointer = std::shared_ptr<OpenUpload>;
  // Model id and upload id, so that the table is in the order of List().
  using Key = std::pair<std::string, std::string>;

  // Null if the upload is not in memory.
  Pointer Lookup(const std::string& model_id, const std::string& upload_id);
  void Insert(Pointer upload);
  void Remove(const OpenUpload& upload);
  std::vector<Pointer> All();
  // Returns the record for callers, whose expiry is by the wall clock.
  v1::UploadRecord Shown(v1::UploadRecord record) const {
    record.set_expire_time_us(core_.clock.ToWallUs(record.expire_time_us()));
    return record;
  }
  // Returns the upload that an earlier run of the request created, or one with
  // committed_version set if it has become a version. INVALID_ARGUMENT if request_digest
  // differs.
  absl::StatusOr<std::optional<v1::UploadRecord>> Earlier(const SaveRequest& request,
                                                          const v1::ModelRecord& model);
  // Writes the upload's row and its request's in one batch, with the model if that is
  // new. ABORTED if the model changed since it was read.
  absl::Status Write(const SaveTarget& target, const v1::UploadRecord& record);
  // Makes one attempt. Returns nothing if another change of the model came first, or,
  // with `evictable` set, if that upload must be deleted first.
  absl::StatusOr<std::optional<v1::UploadRecord>> TryCreate(const SaveRequest& request,
                                                            uint32_t contribution_count,
                                                            absl::Duration time_to_live,
                                                            Pointer& evictable)
      EXCLUDES(create_mutex_);
  // At a limit, returns the upload that was idle for longest, of the model or of all;
  // null below the limits. Overloaded if none is idle.
  absl::StatusOr<Pointer> FindEvictable(const v1::ModelRecord& model);
  // Returns the upload that was idle for longest, of one model, or of all if the uid is
  // empty. Null if none has been idle for upload_min_idle.
  Pointer FindMostIdle(absl::string_view model_uid);
  // Deletes it unless it was used meanwhile.
  absl::Status Evict(const Pointer& upload);
  // Deletes the idle uploads that `wanted` accepts. True if there was one.
  bool DeleteIdleWhere(absl::FunctionRef<bool(const OpenUpload&)> wanted);

  StoreCore& core_;
  Collector& collector_;
  CommittedUploads committed_;
  // One upload is created at a time, so that a repeated request finds the upload of
  // the first one in memory.
  Mutex create_mutex_;
  Mutex mutex_;
  std::map<Key, Pointer> uploads_ GUARDED_BY(mutex_);
};

StoredUploads::Pointer StoredUploads::Lookup(const std::string& model_id,
                                             const std::string& upload_id) {
  MutexLock lock(mutex_);
  auto it = uploads_.find({model_id, upload_id});
  return it == uploads_.end() ? nullptr : it->second;
}

absl::StatusOr<std::shared_ptr<Upload>> StoredUploads::Open(absl::string_view model_id,
                                                            absl::string_view upload_id) {
  const Pointer upload = Lookup(std::string(model_id), std::string(upload_id));
  if (upload == nullptr) return OpenCommitted(model_id, upload_id);
  ASSIGN_OR_RETURN(std::shared_ptr<Upload> committed, upload->BeginCall());
  if (committed != nullptr) return committed;
  return upload;
}

void StoredUploads::Ended(OpenUpload& upload) {
  Remove(upload);
  if (upload.committed()) {
    committed_.Left(upload.record());
  } else {
    collector_.AfterUploadDeletion();
  }
}

void StoredUploads::Insert(Pointer upload) {
  MutexLock lock(mutex_);
  const Key key{upload->model_id(), upload->upload_id()};
  uploads_[key] = std::move(upload);
}

void StoredUploads::Remove(const OpenUpload& upload) {
  MutexLock lock(mutex_);
  uploads_.erase({upload.model_id(), upload.upload_id()});
}

std::vector<StoredUploads::Pointer> StoredUploads::All() {
  MutexLock lock(mutex_);
  std::vector<Pointer> all;
  for (const auto& [key, upload] : uploads_) all.push_back(upload);
  return all;
}

int64_t StoredUploads::open_count() {
  const std::vector<Pointer> all = All();
  return std::count_if(all.begin(), all.end(), [](const Pointer& upload) {
    return !upload->committed() && !upload->deleted();
  });
}

absl::StatusOr<std::optional<v1::UploadRecord>> StoredUploads::Earlier(
    const SaveRequest& request, const v1::ModelRecord& model) {
  std::optional<v1::UploadRecord> none;
  if (request.request_id.empty()) return none;
  ASSIGN_OR_RETURN(const std::optional<v1::RequestRecord> row,
                   GetRecord<v1::RequestRecord>(
                       core_.catalog(), keys::Request(model.uid(), request.request_id)));
  if (!row.has_value()) return none;
  if (row->request_digest() != request.request_digest) {
    return RequestIdReused(request.request_id, "another request");
  }
  const Pointer upload = Lookup(model.model_id(), row->upload_id());
  if (upload != nullptr && upload->Touch().ok()) {
    v1::UploadRecord record = upload->record();
    if (row->version() != 0) record.set_committed_version(row->version());
    return std::optional<v1::UploadRecord>(std::move(record));
  }
  if (row->version() == 0) return none;
  ASSIGN_OR_RETURN(std::optional<v1::UploadRecord> committed,
                   committed_.Find(model.uid(), row->upload_id()));
  if (committed.has_value()) return committed;
  // The upload's own row has expired: returns what the request's row has.
  v1::UploadRecord record;
  record.set_upload_id(row->upload_id());
  record.set_model_id(model.model_id());
  record.set_model_uid(model.uid());
  record.set_request_id(request.request_id);
  record.set_contribution_count(1);
  record.set_committed_version(row->version());
  return std::optional<v1::UploadRecord>(std::move(record));
}

absl::Status StoredUploads::Write(const SaveTarget& target,
                                  const v1::UploadRecord& record) {
  CatalogBatch batch;
  const std::string model_key = keys::Model(record.model_id());
  if (target.model_is_new) {
    batch.Expect(Space::kRecords, model_key, std::nullopt);
    batch.Put(Space::kRecords, model_key, Encode(target.model));
  } else {
    // Refused if the model was changed or deleted since it was resolved.
    batch.Expect(Space::kRecords, model_key, Encode(target.model));
  }
  const std::string key = keys::Upload(record.model_uid(), record.upload_id());
  batch.Put(Space::kRecords, key, Encode(record));
  if (!record.request_id().empty()) {
    v1::RequestRecord request;
    request.set_request_digest(record.request_digest());
    request.set_upload_id(record.upload_id());
    batch.Put(Space::kRecords, keys::Request(record.model_uid(), record.request_id()),
              Encode(request));
  }
  return core_.WriteResolved(batch, Durability::kDurable, StoreCore::Room::kNormalWrite,
                             core_.KeyIs(Space::kRecords, key, Encode(record)));
}

StoredUploads::Pointer StoredUploads::FindMostIdle(absl::string_view model_uid) {
  Pointer idlest;
  absl::Duration longest;
  for (const Pointer& upload : All()) {
    if (!model_uid.empty() && upload->model_uid() != model_uid) continue;
    const absl::Duration idle = upload->IdleFor();
    if (idle > longest) {
      idlest = upload;
      longest = idle;
    }
  }
  return longest >= core_.options.upload_min_idle ? idlest : nullptr;
}

absl::StatusOr<StoredUploads::Pointer> StoredUploads::FindEvictable(
    const v1::ModelRecord& model) {
  int open = 0, of_model = 0;
  for (const Pointer& upload : All()) {
    if (upload->committed() || upload->deleted()) continue;
    ++open;
    if (upload->model_uid() == model.uid()) ++of_model;
  }
  const bool model_is_full = of_model >= core_.options.max_open_uploads_per_model;
  if (!model_is_full && open < core_.options.max_open_uploads) return Pointer();
  Pointer idlest = FindMostIdle(model_is_full ? model.uid() : "");
  if (idlest != nullptr) return idlest;
  return Overloaded(
      absl::StrCat(model_is_full
                       ? absl::StrCat(ModelName(model.model_id()), " has ", of_model,
                                      " open uploads, the most there may be of a model")
                       : absl::StrCat(open, " uploads are open, the most there may be"),
                   ", and each was used within the last ",
                   absl::FormatDuration(core_.options.upload_min_idle),
                   ": commit or delete some, or retry later"),
      kUploadLimitDelayMs);
}

// Called without locks. The caller then tries the creation again, whose limits are
// checked anew: another thread may have taken the place.
absl::Status StoredUploads::Evict(const Pointer& upload) {
  const std::string name = UploadNameOf(upload->model_id(), upload->upload_id());
  const absl::Duration idle = upload->IdleFor();
  const absl::StatusOr<bool> deleted = upload->DeleteIfIdle();
  if (!deleted.ok()) {
    return Overloaded(absl::StrCat("as many uploads are open as there may be, and ", name,
                                   ", which is idle, could not be removed: ",
                                   deleted.status().message()),
                      kUploadLimitDelayMs);
  }
  if (!*deleted) return absl::OkStatus();
  Remove(*upload);
  core_.Event(Listener::Severity::kInfo,
              absl::StrCat("upload ", name, " was idle for ", absl::FormatDuration(idle),
                           " and gave way to a new one"));
  return absl::OkStatus();
}

bool StoredUploads::DeleteIdleWhere(absl::FunctionRef<bool(const OpenUpload&)> wanted) {
  bool any = false;
  for (const Pointer& upload : All()) {
    if (!wanted(*upload)) continue;
    const absl::StatusOr<bool> deleted = upload->DeleteIfIdle();
    if (!deleted.ok() || !*deleted) continue;
    Remove(*upload);
    any = true;
  }
  return any;
}

void StoredUploads::DeleteIdle(absl::string_view base_model_uid,
                               const absl::flat_hash_set<int64_t>& base_versions) {
  const bool any = DeleteIdleWhere([&](const OpenUpload& upload) {
    return upload.base_model_uid() == base_model_uid &&
           base_versions.contains(upload.base_version());
  });
  if (any) collector_.AfterUploadDeletion();
}

absl::StatusOr<v1::UploadRecord> StoredUploads::Create(const SaveRequest& request,
                                                       uint32_t contribution_count,
                                                       absl::Duration time_to_live) {
  if (contribution_count > static_cast<uint32_t>(kMaxContributions)) {
    return InvalidField("upload.contribution_count",
                        absl::StrCat("must be at most ", kMaxContributions));
  }
  RETURN_IF_ERROR(
      core_.space.CheckSpace(static_cast<int64_t>(request.metadata.ByteSizeLong())));
  if (time_to_live <= absl::ZeroDuration()) {
    time_to_live = core_.options.default_upload_ttl;
  }
  bool evicted_any = false;
  auto run = [&]() -> absl::StatusOr<v1::UploadRecord> {
    for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
      Pointer evictable;
      ASSIGN_OR_RETURN(std::optional<v1::UploadRecord> made,
                       TryCreate(request, contribution_count, time_to_live, evictable));
      if (made.has_value()) return Shown(*std::move(made));
      if (evictable == nullptr) continue;
      // Does not hold create_mutex_, because this may wait for a stream and for the disk.
      RETURN_IF_ERROR(Evict(evictable));
      evicted_any = true;
    }
    return Overloaded(absl::StrCat("no upload was opened in ",
                                   ModelName(request.model_id), ": ", kMaxAttempts,
                                   " changes came first: retry later"));
  };
  absl::StatusOr<v1::UploadRecord> made = run();
  if (evicted_any) collector_.AfterUploadDeletion();
  return made;
}

absl::StatusOr<std::optional<v1::UploadRecord>> StoredUploads::TryCreate(
    const SaveRequest& request, uint32_t contribution_count, absl::Duration time_to_live,
    Pointer& evictable) {
  const std::optional<v1::UploadRecord> none;
  MutexLock lock(create_mutex_);
  ASSIGN_OR_RETURN(SaveTarget target, ResolveSave(core_, request));
  ASSIGN_OR_RETURN(std::optional<v1::UploadRecord> earlier,
                   Earlier(request, target.model));
  if (earlier.has_value()) return earlier;
  ASSIGN_OR_RETURN(evictable, FindEvictable(target.model));
  if (evictable != nullptr) return none;
  v1::UploadRecord record;
  record.set_upload_id(RandomHexId());
  record.set_model_uid(target.model.uid());
  record.set_model_id(target.model.model_id());
  *record.mutable_metadata() = request.metadata;
  record.set_contribution_count(std::max(contribution_count, 1u));
  record.set_request_id(request.request_id);
  record.set_request_digest(request.request_digest);
  record.set_create_time_us(core_.NowUs());
  record.set_time_to_live_us(absl::ToInt64Microseconds(time_to_live));
  record.set_expire_time_us(core_.clock.NowUs() + record.time_to_live_us());
  Hold hold;
  std::optional<v1::CheckpointRecord> base;
  if (target.base.has_value()) {
    record.set_base_model_uid(target.base->model.uid());
    record.set_base_model_id(target.base->model.model_id());
    record.set_base_version(target.base->checkpoint.version());
    hold = std::move(target.base->hold);
    base = std::move(target.base->checkpoint);
  }
  const absl::Status status = Write(target, record);
  if (absl::IsAborted(status)) return none;
  if (!status.ok() && !IsUndecided(status)) return status;
  auto upload = std::make_shared<OpenUpload>(
      &core_, this, record, AlgorithmOf(target.model), std::move(hold), std::move(base));
  // The row may have been written after all: a repeated request must find the upload in
  // memory.
  if (!status.ok()) upload->SetInDoubt();
  Insert(std::move(upload));
  RETURN_IF_ERROR(status);
  return std::optional<v1::UploadRecord>(std::move(record));
}

absl::StatusOr<Page<UploadState>> StoredUploads::List(absl::string_view model_id,
                                                      absl::string_view after,
                                                      int limit) {
  Page<UploadState> page;
  // A position is `model/upload` of the last upload on the page.
  const std::string last(after);
  std::string position;
  for (const Pointer& upload : All()) {
    const std::string name = absl::StrCat(upload->model_id(), "/", upload->upload_id());
    const bool wanted = model_id.empty() || upload->model_id() == model_id;
    if (wanted) upload->ResolveUndecided();
    if (!wanted || upload->committed() || upload->deleted()) continue;
    // Model ids have no slash, so these names sort like the table.
    if (!last.empty() &&
        std::make_pair(upload->model_id(), upload->upload_id()) <=
            Key(last.substr(0, last.find('/')),
                last.substr(std::min(last.size(), last.find('/') + 1)))) {
      continue;
    }
    if (page.items.size() == static_cast<size_t>(limit)) {
      page.next = position;
      break;
    }
    page.items.push_back(upload->GetState());
    position = name;
  }
  return page;
}

int64_t StoredUploads::SweepExpired(absl::Time now) {
  committed_.Sweep(now);
  int64_t swept = 0;
  for (const Pointer& upload : All()) {
    upload->ResolveUndecided();
    // A deletion that was undecided may turn out to have happened.
    if (upload->deleted()) Remove(*upload);
    if (upload->deleted() || !upload->Expired(now)) continue;
    const bool open = !upload->committed();
    if (!upload->Discard().ok()) continue;
    Remove(*upload);
    if (open) ++swept;
  }
  return swept;
}

void StoredUploads::DeleteOfModel(absl::string_view model_uid) {
  for (const Pointer& upload : All()) {
    if (upload->model_uid() != model_uid) continue;
    // An upload that cannot be deleted now is deleted when it expires.
    if (upload->Discard().ok()) Remove(*upload);
  }
  // Uploads of other models that use its versions as base would keep their bytes.
  DeleteIdleWhere(
      [&](const OpenUpload& upload) { return upload.base_model_uid() == model_uid; });
}

}  // namespace

std::unique_ptr<UploadTable> MakeUploads(StoreCore* core, Collector* collector) {
  return std::make_unique<StoredUploads>(core, collector);
}

}  // namespace modelstore::storage
