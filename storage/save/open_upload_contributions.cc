// The contributions of an upload: what each worker adds to its manifest. A contribution
// is stored as numbered parts, each a ManifestPage, and one row with their number and
// totals, which changes in the same batch as a part.
#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "storage/keys.h"
#include "storage/random_id.h"
#include "storage/record_codec.h"
#include "storage/save/open_upload.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Missing contributions that an error names.
constexpr size_t kNamedContributions = 10;

}  // namespace

void OpenUpload::Restore(uint32_t contribution, const v1::ContributionRecord& record) {
  MutexLock lock(mutex_);
  contributions_[contribution] = {
      record.part_count(),
      record.complete(),
      {record.tensor_count(), record.manifest_bytes(), record.attachment_bytes()},
      Encode(record)};
}

// Deletes all stored parts, not only those that are known: a write that seemed to fail
// may have left one.
absl::Status OpenUpload::DeleteParts(uint32_t contribution, CatalogBatch& batch) {
  const std::string row = keys::Contribution(upload_id_, contribution);
  return core_->catalog().Scan(Space::kRecords, PrefixRange(row),
                               [&](absl::string_view key, absl::string_view) {
                                 if (key != row) {
                                   batch.Delete(Space::kRecords, std::string(key));
                                 }
                                 return true;
                               });
}

absl::Status OpenUpload::AddManifest(uint32_t contribution, const ManifestPart& part,
                                     bool begin, bool complete) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> committed, BeginCall());
  if (committed != nullptr)
    return committed->AddManifest(contribution, part, begin, complete);
  RETURN_IF_ERROR(core_->space.CheckSpace(static_cast<int64_t>(part.ByteSizeLong())));
  ManifestPart checked = part;
  MutexLock lock(mutex_);
  RETURN_IF_ERROR(CheckOpen());
  if (contribution >= record_.contribution_count()) {
    return InvalidField("contribution",
                        absl::StrCat("must be below ", record_.contribution_count()));
  }
  CatalogBatch batch;
  const std::string key = keys::Contribution(upload_id_, contribution);
  Contribution next = contributions_[contribution];
  if (begin) {
    RETURN_IF_ERROR(DeleteParts(contribution, batch));
    next = {};
  } else {
    // Parts but the last are written unsynced. A reopening of storage may have lost some,
    // and brought back those that they replaced: the batch is then refused (ABORTED).
    batch.Expect(Space::kRecords, key, next.row);
  }
  RETURN_IF_ERROR(
      CheckManifestPart(algorithm_, DigestsWanted::kAll, checked, next.totals));
  ManifestTotals all = next.totals;
  for (const auto& [index, other] : contributions_) {
    // Several workers may send the same replicated tensors, so the number of tensors is
    // checked at commit, after the parts are joined. The stored bytes do add up.
    if (index != contribution) all.bytes += other.totals.bytes;
  }
  RETURN_IF_ERROR(CheckManifestTotals(all));
  if (checked.ByteSizeLong() > 0) {
    batch.Put(Space::kRecords,
              keys::ContributionPart(upload_id_, contribution, next.parts++),
              Encode(checked));
  }
  next.complete = complete;
  v1::ContributionRecord row;
  row.set_part_count(next.parts);
  row.set_complete(complete);
  row.set_tensor_count(next.totals.tensors);
  row.set_manifest_bytes(next.totals.bytes);
  row.set_attachment_bytes(next.totals.attachment_bytes);
  // Makes each row differ, so that KeyIs() recognizes this write.
  row.set_change_id(RandomNumber());
  next.row = Encode(row);
  batch.Put(Space::kRecords, key, *next.row);
  const absl::Status status = core_->WriteResolved(
      batch, complete ? Durability::kDurable : Durability::kBuffered,
      StoreCore::Room::kNormalWrite, core_->KeyIs(Space::kRecords, key, next.row));
  if (status.ok()) {
    contributions_[contribution] = std::move(next);
    return status;
  }
  if (!absl::IsAborted(status) && !IsUndecided(status)) return status;
  // It is not known which parts are stored: the client must send the contribution again
  // from its first part.
  contributions_[contribution] = {};
  if (IsUndecided(status)) return status;
  return Unavailable(
      absl::StrCat("upload ", Name(), ": parts of contribution ", contribution,
                   " were lost; send it again from its first"),
      1000);
}

absl::Status OpenUpload::CheckContributions() {
  MutexLock lock(mutex_);
  std::vector<uint32_t> missing;
  for (uint32_t c = 0; c < record_.contribution_count(); ++c) {
    auto it = contributions_.find(c);
    if (it == contributions_.end() || !it->second.complete) missing.push_back(c);
  }
  if (missing.empty()) return absl::OkStatus();
  const size_t named = std::min(missing.size(), kNamedContributions);
  return MakeError(
      ERROR_REASON_INCOMPLETE,
      absl::StrCat("upload ", Name(), ": ", missing.size(), " of ",
                   record_.contribution_count(), " contributions are missing: ",
                   absl::StrJoin(missing.begin(), missing.begin() + named, ", "),
                   missing.size() > named ? ", ..." : ""),
      {{"missing_count", absl::StrCat(missing.size())}});
}

std::vector<int64_t> OpenUpload::TensorCounts() {
  MutexLock lock(mutex_);
  std::vector<int64_t> counts;
  for (uint32_t c = 0; c < record_.contribution_count(); ++c) {
    counts.push_back(contributions_[c].totals.tensors);
  }
  return counts;
}

// Reads only the parts that the contributions are known to have: a write that seemed to
// fail may have left further ones. A known part may have been lost, because only the last
// part of a contribution is synced: its contribution then counts as missing.
absl::Status OpenUpload::ReadManifest(ManifestBuilder& builder) {
  std::map<uint32_t, uint32_t> unread;
  {
    MutexLock lock(mutex_);
    for (const auto& [index, contribution] : contributions_) {
      unread[index] = contribution.parts;
    }
  }
  const std::map<uint32_t, uint32_t> known = unread;
  absl::Status status;
  RETURN_IF_ERROR(core_->catalog().Scan(
      Space::kRecords, PrefixRange(keys::Contributions(upload_id_)),
      [&](absl::string_view key, absl::string_view value) {
        const std::optional<keys::PartKey> part = keys::ParseContributionPart(key);
        if (!part.has_value()) return true;
        auto contribution = known.find(part->contribution);
        if (contribution == known.end() || part->part >= contribution->second)
          return true;
        --unread[part->contribution];
        absl::StatusOr<v1::ManifestPage> page = Decode<v1::ManifestPage>(value);
        status = page.ok() ? builder.Add(*std::move(page)) : page.status();
        return status.ok();
      }));
  RETURN_IF_ERROR(status);
  {
    MutexLock lock(mutex_);
    for (const auto& [index, parts] : unread) {
      // Parts that the scan did not find are lost.
      if (parts > 0) contributions_[index] = {};
    }
  }
  RETURN_IF_ERROR(CheckContributions());
  ManifestTotals totals;
  totals.tensors = builder.manifest().tensors_size();
  for (const auto& attachment : builder.manifest().attachments()) {
    totals.attachment_bytes += static_cast<int64_t>(attachment.data().size());
  }
  return CheckManifestTotals(totals);
}

}  // namespace modelstore::storage
