// The keys of the catalog. Numbers are big-endian, so that keys sort by number. Uids and
// upload ids are 32 hex digits, so that no owner's keys have another owner's prefix. The
// first letter of a key in Space::kRecords is the kind of its record. storage/FORMAT.md
// lists them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "storage/catalog.h"

namespace modelstore::storage::keys {

inline constexpr size_t kIdLength = 32;

// Keys of Space::kRecords, with the type of record.
std::string Store();                                          // StoreRecord
std::string Clock();                                          // ClockRecord
std::string Model(absl::string_view model_id);                // ModelRecord
std::string Version(absl::string_view uid, int64_t version);  // CheckpointRecord
std::string Request(absl::string_view uid, absl::string_view request_id);
std::string Upload(absl::string_view uid, absl::string_view upload_id);
// The journal of an upload: one entry for each pack that it sealed.
std::string SealedPack(absl::string_view upload_id, uint64_t pack);
std::string Contribution(absl::string_view upload_id, uint32_t contribution);
std::string ContributionPart(absl::string_view upload_id, uint32_t contribution,
                             uint32_t part);
std::string Pack(uint64_t pack);  // PackRecord; its uses follow it
std::string PackUse(uint64_t pack, absl::string_view uid, int64_t version);
std::string DeadCheckpoint(absl::string_view uid, int64_t version);
std::string DeadModel(absl::string_view uid);
std::string DamagedPack(uint64_t pack);
// Marks a manifest whose pages are written and whose commit has not happened yet.
std::string RunningManifest(uint64_t manifest_id);

std::string Alias(absl::string_view uid, absl::string_view alias);
// `generation` is the model's generation after the change.
std::string AliasMove(absl::string_view uid, uint64_t generation);
std::string Event(absl::string_view uid, uint64_t generation);
std::string Lease(absl::string_view uid, int64_t version, absl::string_view holder);

// Prefixes of all records of one kind, or of one owner.
std::string Models();
std::string Versions(absl::string_view uid);
std::string Requests(absl::string_view uid);
std::string AllUploads();
std::string Uploads(absl::string_view uid);
std::string SealedPacks();
std::string SealedPacks(absl::string_view upload_id);
std::string Contributions(absl::string_view upload_id);
std::string Packs();
std::string DeadCheckpoints();
std::string DeadModels();
std::string DamagedPacks();
std::string RunningManifests();
std::string Aliases(absl::string_view uid);
std::string AliasMoves(absl::string_view uid);
std::string Events(absl::string_view uid);
std::string AllLeases();
std::string Leases(absl::string_view uid);
std::string Leases(absl::string_view uid, int64_t version);

// Keys and prefixes of Space::kManifests and Space::kChunks.
std::string ManifestPage(uint64_t manifest_id, uint32_t page);
std::string ManifestPages(uint64_t manifest_id);
std::string Chunk(uint64_t pack, uint32_t sequence);
std::string Chunks(uint64_t pack);

// Parsers. Each expects a key of its own kind.
int64_t VersionOf(absl::string_view version_key);
uint64_t DamagedPackOf(absl::string_view key);
uint64_t RunningManifestOf(absl::string_view key);
uint32_t ContributionOf(absl::string_view key);  // of a Contribution
struct PartKey {
  uint32_t contribution = 0;
  uint32_t part = 0;
};
// Absent if the key is that of a Contribution.
std::optional<PartKey> ParseContributionPart(absl::string_view key);
std::string AliasOf(absl::string_view key);
// Expects the key of an AliasMove or an Event.
uint64_t GenerationOf(absl::string_view key);
struct LeaseKey {
  std::string uid;
  int64_t version = 0;
  std::string holder;
};
LeaseKey ParseLeaseKey(absl::string_view key);

struct PackKey {
  uint64_t pack = 0;
  std::string uid;  // empty: the key is that of the PackRecord
  int64_t version = 0;
};
PackKey ParsePackKey(absl::string_view key);
uint64_t SealedPackOf(absl::string_view key);

// Set in the ids of inline packs: those of small saves, whose chunks are stored in
// Space::kChunks.
inline constexpr uint64_t kInlinePackBit = uint64_t{1} << 63;
inline bool IsInlinePack(uint64_t pack) { return (pack & kInlinePackBit) != 0; }

}  // namespace modelstore::storage::keys
