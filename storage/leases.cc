#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/holders.h"
#include "storage/keys.h"
#include "storage/model_change.h"
#include "storage/parts.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Leases on one version. A deletion reads each of them.
constexpr int kMaxLeases = 1000;

// See Leases. Each change of a lease also changes the model's record (lease_change), so
// that a deletion that runs at the same time is refused and checks the leases again. It
// is no event: watchers and etags do not see it.
class StoredLeases final : public Leases {
 public:
  explicit StoredLeases(StoreCore* core) : core_(*core) {}

  absl::StatusOr<Lease> Acquire(absl::string_view model_id, VersionName version,
                                absl::string_view holder, absl::Duration time_to_live,
                                absl::string_view model_uid) override;
  absl::Status Release(absl::string_view model_id, int64_t version,
                       absl::string_view holder, absl::string_view model_uid) override;
  absl::StatusOr<Page<Lease>> List(absl::string_view model_id,
                                   std::optional<VersionName> version,
                                   absl::string_view after, int limit) override;

 private:
  // Adds the deletion of expired leases, except `own`, to the change, and counts the live
  // ones.
  absl::Status SweepExpired(const std::string& prefix, const std::string& own,
                            ModelChange& change, int& live);
  void ConvertToWallTime(v1::LeaseRecord& lease) const {
    lease.set_expire_time_us(core_.clock.ToWallUs(lease.expire_time_us()));
  }

  StoreCore& core_;
};

absl::Status StoredLeases::SweepExpired(const std::string& prefix, const std::string& own,
                                        ModelChange& change, int& live) {
  return core_.catalog().Scan(Space::kRecords, PrefixRange(prefix),
                              [&](absl::string_view key, absl::string_view value) {
                                if (key == own) return true;
                                absl::StatusOr<v1::LeaseRecord> lease =
                                    Decode<v1::LeaseRecord>(value);
                                if (!lease.ok() || IsLive(core_, *lease)) {
                                  ++live;
                                } else {
                                  change.batch.Delete(Space::kRecords, std::string(key));
                                }
                                return true;
                              });
}

absl::StatusOr<Leases::Lease> StoredLeases::Acquire(absl::string_view model_id,
                                                    VersionName version,
                                                    absl::string_view holder,
                                                    absl::Duration time_to_live,
                                                    absl::string_view model_uid) {
  Lease lease;
  lease.holder = std::string(holder);
  auto plan = [&](ModelChange& change) -> absl::Status {
    v1::ModelRecord& model = change.model;
    RETURN_IF_ERROR(CheckUid(model, model_uid));
    ASSIGN_OR_RETURN(const v1::CheckpointRecord checkpoint,
                     GetVersion(core_, model, version));
    lease.version = checkpoint.version();
    const std::string key = keys::Lease(model.uid(), lease.version, holder);
    int live = 0;
    RETURN_IF_ERROR(
        SweepExpired(keys::Leases(model.uid(), lease.version), key, change, live));
    if (live >= kMaxLeases) {
      return OverLimit(
          "leases", kMaxLeases,
          absl::StrCat(CheckpointNameOf(model_id, lease.version), " has ", kMaxLeases,
                       " leases: share one among the workers of a job"));
    }
    ASSIGN_OR_RETURN(const std::optional<v1::LeaseRecord> present,
                     GetRecord<v1::LeaseRecord>(core_.catalog(), key));
    // A lease that has expired is not renewed but acquired again.
    lease.record.set_create_time_us(present.has_value() && IsLive(core_, *present)
                                        ? present->create_time_us()
                                        : core_.NowUs());
    lease.record.set_expire_time_us(absl::ToUnixMicros(core_.clock.Now() + time_to_live));
    model.set_lease_change(RandomNumber());
    change.batch.Put(Space::kRecords, key, Encode(lease.record));
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(
      ChangeModel(core_, model_id, StoreCore::Room::kNormalWrite, plan).status());
  ConvertToWallTime(lease.record);
  return lease;
}

absl::Status StoredLeases::Release(absl::string_view model_id, int64_t version,
                                   absl::string_view holder,
                                   absl::string_view model_uid) {
  return ChangeModel(core_, model_id, StoreCore::Room::kFreesSpace,
                     [&](ModelChange& change) -> absl::Status {
                       v1::ModelRecord& model = change.model;
                       RETURN_IF_ERROR(CheckUid(model, model_uid));
                       RETURN_IF_ERROR(GetVersion(core_, model, version).status());
                       const std::string key = keys::Lease(model.uid(), version, holder);
                       ASSIGN_OR_RETURN(const std::optional<v1::LeaseRecord> present,
                                        GetRecord<v1::LeaseRecord>(core_.catalog(), key));
                       if (!present.has_value() || !IsLive(core_, *present)) {
                         return DoesNotExist("lease",
                                             LeaseNameOf(model_id, version, holder));
                       }
                       model.set_lease_change(RandomNumber());
                       change.batch.Delete(Space::kRecords, key);
                       return absl::OkStatus();
                     })
      .status();
}

absl::StatusOr<Page<Leases::Lease>> StoredLeases::List(absl::string_view model_id,
                                                       std::optional<VersionName> version,
                                                       absl::string_view after,
                                                       int limit) {
  ASSIGN_OR_RETURN(const v1::ModelRecord model, GetModel(core_, model_id));
  std::string prefix = keys::Leases(model.uid());
  if (version.has_value()) {
    ASSIGN_OR_RETURN(const v1::CheckpointRecord checkpoint,
                     GetVersion(core_, model, *version));
    prefix = keys::Leases(model.uid(), checkpoint.version());
  }
  KeyRange range = PrefixRange(prefix);
  // A position is the part of the last lease's key behind the model's uid, in hex.
  if (!after.empty()) {
    range.begin = std::max(range.begin, absl::StrCat(keys::Leases(model.uid()),
                                                     absl::HexStringToBytes(after),
                                                     absl::string_view("\0", 1)));
  }
  Page<Lease> page;
  std::string last_key;
  absl::Status status;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, range, [&](absl::string_view key, absl::string_view value) {
        absl::StatusOr<v1::LeaseRecord> lease = Decode<v1::LeaseRecord>(value);
        if (!lease.ok()) {
          status = lease.status();
          return false;
        }
        if (!IsLive(core_, *lease)) return true;
        if (page.items.size() == static_cast<size_t>(limit)) {
          page.next =
              absl::BytesToHexString(last_key.substr(keys::Leases(model.uid()).size()));
          return false;
        }
        last_key = std::string(key);
        keys::LeaseKey named = keys::ParseLeaseKey(key);
        ConvertToWallTime(*lease);
        page.items.push_back({named.version, std::move(named.holder), *std::move(lease)});
        return true;
      }));
  RETURN_IF_ERROR(status);
  return page;
}

}  // namespace

std::unique_ptr<Leases> MakeLeases(StoreCore* core) {
  return std::make_unique<StoredLeases>(core);
}

}  // namespace modelstore::storage
