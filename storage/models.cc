#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/garbage/collector.h"
#include "storage/holders.h"
#include "storage/keys.h"
#include "storage/model_change.h"
#include "storage/parts.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/save/commit.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Attempts of a deletion that loses to other writers of the model.
constexpr int kMaxAttempts = 1000;
// DIGEST_ALGORITHM_SHA256, which is in the API and not implemented.
constexpr uint32_t kSha256 = 2;

// See Models.
class StoredModels final : public Models {
 public:
  StoredModels(StoreCore* core, UploadTable* uploads, Collector* collector)
      : core_(*core), uploads_(*uploads), collector_(*collector) {}

  absl::StatusOr<v1::ModelRecord> Create(const v1::ModelRecord& given) override {
    RETURN_IF_ERROR(ValidateModelId("model_id", given.model_id()));
    if (given.digest_algorithm() == kSha256) {
      return absl::UnimplementedError("models with SHA256 digests are not supported yet");
    }
    const v1::ModelRecord model = NewModelRecord(core_, given);
    absl::StatusOr<DigestAlgorithm> algorithm =
        DigestAlgorithmFromNumber(static_cast<int>(model.digest_algorithm()));
    if (!algorithm.ok()) {
      return InvalidField("digest_algorithm", algorithm.status().message());
    }
    const std::string key = keys::Model(model.model_id()), value = Encode(model);
    RETURN_IF_ERROR(core_.space.CheckSpace(static_cast<int64_t>(value.size())));
    CatalogBatch batch;
    batch.Expect(Space::kRecords, key, std::nullopt);
    batch.Put(Space::kRecords, key, value);
    const absl::Status status =
        core_.WriteResolved(batch, Durability::kDurable, StoreCore::Room::kNormalWrite,
                            core_.KeyIs(Space::kRecords, key, value));
    if (absl::IsAborted(status)) {
      return AlreadyExists("model", ModelName(model.model_id()));
    }
    RETURN_IF_ERROR(status);
    return model;
  }

  absl::StatusOr<v1::ModelRecord> Get(absl::string_view model_id) override {
    return GetModel(core_, model_id);
  }

  absl::StatusOr<Page<v1::ModelRecord>> List(absl::string_view prefix,
                                             absl::string_view after,
                                             int limit) override {
    Page<v1::ModelRecord> page;
    KeyRange range = PrefixRange(keys::Model(prefix));
    // The first key behind `after`.
    if (!after.empty()) {
      range.begin = std::max(
          range.begin, absl::StrCat(keys::Model(after), absl::string_view("\0", 1)));
    }
    absl::Status status;
    RETURN_IF_ERROR(core_.catalog().Scan(
        Space::kRecords, range, [&](absl::string_view, absl::string_view value) {
          if (page.items.size() == static_cast<size_t>(limit)) {
            page.next = page.items.back().model_id();
            return false;
          }
          absl::StatusOr<v1::ModelRecord> model = Decode<v1::ModelRecord>(value);
          if (!model.ok()) {
            status = model.status();
            return false;
          }
          page.items.push_back(*std::move(model));
          return true;
        }));
    RETURN_IF_ERROR(status);
    return page;
  }

  absl::StatusOr<v1::ModelRecord> Change(absl::string_view model_id, const Update& update,
                                         const ChangeOptions& options) override;
  absl::StatusOr<Freed> Delete(absl::string_view model_id, bool force,
                               const ChangeOptions& options) override;
  absl::StatusOr<std::vector<Event>> Events(const v1::ModelRecord& model,
                                            uint64_t after_generation,
                                            int limit) override;

 private:
  // ABORTED if the model has changed since the caller read it.
  static absl::Status CheckGeneration(const v1::ModelRecord& model,
                                      const ChangeOptions& options) {
    if (!options.generation.has_value() || *options.generation == model.generation()) {
      return absl::OkStatus();
    }
    return StaleEtag(ModelName(model.model_id()));
  }
  // FAILED_PRECONDITION as Models::Delete() says.
  absl::Status CheckDeletable(const v1::ModelRecord& model, bool force) {
    if (model.checkpoint_count() > 0 && !force) {
      const std::string name = ModelName(model.model_id());
      return MakeError(ERROR_REASON_NOT_EMPTY,
                       absl::StrCat(name, " has ", model.checkpoint_count(),
                                    " checkpoints: delete them first, or use force"),
                       {{"resource_name", name},
                        {"checkpoint_count", absl::StrCat(model.checkpoint_count())}});
    }
    return CheckNoneHeld(core_, model);
  }

  StoreCore& core_;
  UploadTable& uploads_;
  Collector& collector_;
};

absl::StatusOr<v1::ModelRecord> StoredModels::Change(absl::string_view model_id,
                                                     const Update& update,
                                                     const ChangeOptions& options) {
  return ChangeModel(core_, model_id, StoreCore::Room::kNormalWrite,
                     [&](ModelChange& change) -> absl::Status {
                       v1::ModelRecord& model = change.model;
                       RETURN_IF_ERROR(CheckUid(model, options.model_uid));
                       RETURN_IF_ERROR(CheckGeneration(model, options));
                       if (update.description) model.set_description(*update.description);
                       if (update.labels) *model.mutable_labels() = *update.labels;
                       if (update.extra) model.set_extra(*update.extra);
                       change.event.emplace().set_model_updated(true);
                       change.skip = options.validate_only;
                       return absl::OkStatus();
                     });
}

absl::StatusOr<Freed> StoredModels::Delete(absl::string_view model_id, bool force,
                                           const ChangeOptions& options) {
  // Not by ChangeModel(), which writes the record back.
  const std::string key = keys::Model(model_id);
  std::string uid = options.model_uid;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const std::optional<std::string> bytes,
                     core_.catalog().Get(Space::kRecords, key));
    if (!bytes.has_value()) return DoesNotExist("model", ModelName(model_id));
    ASSIGN_OR_RETURN(const v1::ModelRecord model, Decode<v1::ModelRecord>(*bytes));
    RETURN_IF_ERROR(CheckUid(model, uid));
    uid = model.uid();
    RETURN_IF_ERROR(CheckGeneration(model, options));
    RETURN_IF_ERROR(CheckDeletable(model, force));
    if (options.validate_only) return Freed();
    // One small batch, however many versions there are: their records are under the uid,
    // which a later model of this name does not share. The collector deletes them.
    v1::DeadModelRecord dead;
    dead.set_model_uid(model.uid());
    dead.set_model_id(model.model_id());
    dead.set_dead_since_us(core_.clock.NowUs());
    CatalogBatch batch;
    batch.Expect(Space::kRecords, key, *bytes);
    batch.Delete(Space::kRecords, key);
    batch.Put(Space::kRecords, keys::DeadModel(model.uid()), Encode(dead));
    const absl::Status status = core_.WriteResolved(
        batch, Durability::kDurable, StoreCore::Room::kFreesSpace,
        core_.KeyIs(Space::kRecords, keys::DeadModel(model.uid()), Encode(dead)));
    if (absl::IsAborted(status)) continue;
    RETURN_IF_ERROR(status);
    core_.garbage_possible = true;
    core_.Changed(model.uid());
    uploads_.DeleteOfModel(model.uid());
    return collector_.AfterModelDeletion(model);
  }
  return Overloaded(absl::StrCat(ModelName(model_id), " was not deleted: ", kMaxAttempts,
                                 " other changes came first: retry later"));
}

absl::StatusOr<std::vector<Models::Event>> StoredModels::Events(
    const v1::ModelRecord& model, uint64_t after_generation, int limit) {
  std::vector<Event> events;
  KeyRange range = PrefixRange(keys::Events(model.uid()));
  range.begin = keys::Event(model.uid(), after_generation + 1);
  absl::Status status;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, range, [&](absl::string_view key, absl::string_view value) {
        if (events.size() == static_cast<size_t>(limit)) return false;
        absl::StatusOr<v1::EventRecord> record = Decode<v1::EventRecord>(value);
        if (!record.ok()) {
          status = record.status();
          return false;
        }
        events.push_back({keys::GenerationOf(key), *std::move(record)});
        return true;
      }));
  RETURN_IF_ERROR(status);
  // Generations have no gaps: the events are complete if the first one follows
  // `after_generation`.
  const bool complete = events.empty() ? after_generation >= model.generation()
                                       : events[0].generation == after_generation + 1;
  if (complete) return events;
  return absl::OutOfRangeError(absl::StrCat(ModelName(model.model_id()),
                                            ": the events after generation ",
                                            after_generation, " have been trimmed"));
}

}  // namespace

std::unique_ptr<Models> MakeModels(StoreCore* core, UploadTable* uploads,
                                   Collector* collector) {
  return std::make_unique<StoredModels>(core, uploads, collector);
}

}  // namespace modelstore::storage
