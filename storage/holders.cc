#include "storage/holders.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Holders that a refusal names. Errors are sent in trailers, whose size is limited, so
// the rest is only counted.
constexpr size_t kMaxNamedHolders = 20;
// Length of each list of holders in the error's metadata.
constexpr size_t kMaxListBytes = 600;

// Collects what holds one version, or all of a model.
class Holders {
 public:
  // `whole_model`: the error names the version with each holder.
  Holders(const v1::ModelRecord& model, bool whole_model)
      : model_(model), whole_model_(whole_model) {}

  // Adds the aliases of one version, or of all.
  void AddAliases(const std::optional<int64_t>& version) {
    std::vector<std::pair<std::string, int64_t>> aliases;
    for (const auto& [alias, named] : model_.aliases()) {
      if (!version.has_value() || named == *version) aliases.emplace_back(alias, named);
    }
    std::sort(aliases.begin(), aliases.end());
    for (const auto& [alias, named] : aliases) {
      Add(absl::StrCat("the alias ", alias), named, absl::StrCat(named, ":", alias),
          aliases_);
    }
  }
  void AddPin(int64_t version) { Add("its pin", version, absl::StrCat(version), pins_); }
  // Adds the live leases whose keys start with `prefix`. A damaged record counts as a
  // live lease: a deletion must not rely on it.
  absl::Status AddLeases(StoreCore& core, const std::string& prefix) {
    return core.catalog().Scan(
        Space::kRecords, PrefixRange(prefix),
        [&](absl::string_view key, absl::string_view value) {
          const absl::StatusOr<v1::LeaseRecord> lease = Decode<v1::LeaseRecord>(value);
          if (lease.ok() && !IsLive(core, *lease)) return true;
          const keys::LeaseKey named = keys::ParseLeaseKey(key);
          Add(absl::StrCat("the lease of ", named.holder), named.version,
              absl::StrCat(named.version, ":", named.holder), leases_);
          return true;
        });
  }

  // Returns OK if there are no holders, else FAILED_PRECONDITION that names them and what
  // to do.
  absl::Status Refusal(const std::string& what) const {
    if (count_ == 0) return absl::OkStatus();
    std::vector<absl::string_view> remedies;
    if (!aliases_.empty()) remedies.push_back("move or delete the aliases");
    if (!pins_.empty()) remedies.push_back("unpin by UpdateCheckpoint");
    if (!leases_.empty()) remedies.push_back("release the leases or let them expire");
    const size_t more = count_ - named_.size();
    return MakeError(ERROR_REASON_HELD,
                     absl::StrCat(what, " is held by ", absl::StrJoin(named_, ", "),
                                  more > 0 ? absl::StrCat(" and ", more, " more") : "",
                                  ": ", absl::StrJoin(remedies, ", "), " first"),
                     {{"resource_name", what},
                      {"aliases", aliases_},
                      {"pins", pins_},
                      {"leases", leases_},
                      {"holder_count", absl::StrCat(count_)}});
  }

 private:
  // Counts a holder and, as long as there is room, adds `entry` to the list of its kind.
  void Add(const std::string& holder, int64_t version, const std::string& entry,
           std::string& list) {
    ++count_;
    if (list.size() + 1 + entry.size() <= kMaxListBytes) {
      absl::StrAppend(&list, list.empty() ? "" : ",", entry);
    }
    if (named_.size() >= kMaxNamedHolders) return;
    named_.push_back(whole_model_ ? absl::StrCat(holder, " (version ", version, ")")
                                  : holder);
  }

  const v1::ModelRecord& model_;
  const bool whole_model_;
  std::vector<std::string> named_;
  size_t count_ = 0;
  // Lists for the error's metadata, separated by commas.
  std::string aliases_;
  std::string pins_;
  std::string leases_;
};

}  // namespace

bool IsLive(const StoreCore& core, const v1::LeaseRecord& lease) {
  return core.InStartGrace() || core.clock.NowUs() < lease.expire_time_us();
}

absl::Status CheckNotHeld(StoreCore& core, const v1::ModelRecord& model,
                          const v1::CheckpointRecord& checkpoint) {
  const int64_t version = checkpoint.version();
  Holders holders(model, /*whole_model=*/false);
  holders.AddAliases(version);
  if (checkpoint.pinned()) holders.AddPin(version);
  RETURN_IF_ERROR(holders.AddLeases(core, keys::Leases(model.uid(), version)));
  return holders.Refusal(CheckpointNameOf(model.model_id(), version));
}

absl::Status CheckNoneHeld(StoreCore& core, const v1::ModelRecord& model) {
  Holders holders(model, /*whole_model=*/true);
  holders.AddAliases(std::nullopt);
  // The model counts its pins, so that a model without pins is not scanned.
  int64_t pinned = model.pinned_count();
  if (pinned > 0) {
    RETURN_IF_ERROR(
        core.catalog().Scan(Space::kRecords, PrefixRange(keys::Versions(model.uid())),
                            [&](absl::string_view key, absl::string_view value) {
                              absl::StatusOr<v1::CheckpointRecord> record =
                                  Decode<v1::CheckpointRecord>(value);
                              if (record.ok() && record->pinned()) {
                                holders.AddPin(keys::VersionOf(key));
                                --pinned;
                              }
                              return pinned > 0;
                            }));
  }
  RETURN_IF_ERROR(holders.AddLeases(core, keys::Leases(model.uid())));
  return holders.Refusal(ModelName(model.model_id()));
}

}  // namespace modelstore::storage
