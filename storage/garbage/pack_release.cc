#include "storage/garbage/pack_release.h"

#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {

void UnusedPacks::Add(const UnusedPacks& other) {
  packs.insert(packs.end(), other.packs.begin(), other.packs.end());
  shared.insert(shared.end(), other.shared.begin(), other.shared.end());
  gone.insert(gone.end(), other.gone.begin(), other.gone.end());
  inline_bytes += other.inline_bytes;
}

absl::Status ReleasePack(StoreCore& core, uint64_t pack, absl::string_view uid,
                         int64_t version, CatalogBatch& batch, UnusedPacks& unused) {
  const std::string own = keys::PackUse(pack, uid, version);
  batch.Delete(Space::kRecords, own);
  bool others = false;
  absl::StatusOr<v1::PackRecord> record = v1::PackRecord();
  // Scans from the end: the oldest versions are usually deleted first, and a scan from
  // the front would pass their tombstones. The PackRecord, which has no uid in its key,
  // comes last.
  KeyRange uses = PrefixRange(keys::Pack(pack));
  uses.reverse = true;
  RETURN_IF_ERROR(core.catalog().Scan(
      Space::kRecords, uses, [&](absl::string_view found, absl::string_view value) {
        if (found == keys::Pack(pack)) {
          record = Decode<v1::PackRecord>(value);
        } else if (found != own) {
          others = true;
        }
        return !others;
      }));
  if (others) return absl::OkStatus();
  // The record tells where the chunks are.
  if (!record.ok()) return Annotate(record.status(), absl::StrCat("pack ", pack));
  batch.Delete(Space::kRecords, keys::Pack(pack));
  batch.Delete(Space::kRecords, keys::DamagedPack(pack));
  unused.gone.push_back(pack);
  if (keys::IsInlinePack(pack)) {
    for (uint32_t c = 0; c < record->chunk_count(); ++c) {
      batch.Delete(Space::kChunks, keys::Chunk(pack, c));
    }
    unused.inline_bytes += record->chunk_bytes();
  } else if (record->has_place()) {
    unused.shared.push_back(record->place().pack());
  } else {
    unused.packs.push_back(pack);
  }
  return absl::OkStatus();
}

}  // namespace modelstore::storage
