#include "storage/keys.h"

#include "absl/strings/str_cat.h"

namespace modelstore::storage::keys {
namespace {

// Appends a number, big-endian.
template <typename T>
void AppendNumber(T number, std::string& out) {
  for (int shift = static_cast<int>(sizeof(T)) * 8 - 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((number >> shift) & 0xff));
  }
}

// Reads 8 big-endian bytes, fewer at the end of the key.
uint64_t NumberAt(absl::string_view key, size_t position) {
  uint64_t number = 0;
  for (size_t i = position; i < position + 8 && i < key.size(); ++i) {
    number = (number << 8) | static_cast<unsigned char>(key[i]);
  }
  return number;
}

std::string Numbered(absl::string_view prefix, uint64_t number) {
  std::string key(prefix);
  AppendNumber(number, key);
  return key;
}

std::string Owned(char kind, absl::string_view owner) {
  return absl::StrCat(absl::string_view(&kind, 1), owner);
}

}  // namespace

std::string Store() { return "s"; }
std::string Clock() { return "t"; }
std::string Models() { return "m"; }
std::string Model(absl::string_view model_id) { return Owned('m', model_id); }

std::string Versions(absl::string_view uid) { return Owned('v', uid); }
std::string Version(absl::string_view uid, int64_t version) {
  return Numbered(Versions(uid), static_cast<uint64_t>(version));
}
int64_t VersionOf(absl::string_view version_key) {
  return static_cast<int64_t>(NumberAt(version_key, 1 + kIdLength));
}

std::string Requests(absl::string_view uid) { return Owned('r', uid); }
std::string Request(absl::string_view uid, absl::string_view request_id) {
  return absl::StrCat(Requests(uid), request_id);
}

std::string AllUploads() { return "u"; }
std::string Uploads(absl::string_view uid) { return Owned('u', uid); }
std::string Upload(absl::string_view uid, absl::string_view upload_id) {
  return absl::StrCat(Uploads(uid), upload_id);
}

std::string SealedPacks() { return "j"; }
std::string SealedPacks(absl::string_view upload_id) { return Owned('j', upload_id); }
std::string SealedPack(absl::string_view upload_id, uint64_t pack) {
  return Numbered(SealedPacks(upload_id), pack);
}
uint64_t SealedPackOf(absl::string_view key) { return NumberAt(key, 1 + kIdLength); }

std::string Contributions(absl::string_view upload_id) { return Owned('c', upload_id); }
std::string Contribution(absl::string_view upload_id, uint32_t contribution) {
  std::string key = Contributions(upload_id);
  AppendNumber(contribution, key);
  return key;
}
std::string ContributionPart(absl::string_view upload_id, uint32_t contribution,
                             uint32_t part) {
  std::string key = Contribution(upload_id, contribution);
  AppendNumber(part, key);
  return key;
}

// A contribution is 4 bytes at the end of the key, so NumberAt() reads just these.
uint32_t ContributionOf(absl::string_view key) {
  return static_cast<uint32_t>(NumberAt(key, 1 + kIdLength));
}

std::optional<PartKey> ParseContributionPart(absl::string_view key) {
  if (key.size() != 1 + kIdLength + 8) return std::nullopt;
  const uint64_t both = NumberAt(key, 1 + kIdLength);
  return PartKey{static_cast<uint32_t>(both >> 32), static_cast<uint32_t>(both)};
}

std::string Packs() { return "k"; }
std::string Pack(uint64_t pack) { return Numbered(Packs(), pack); }
std::string PackUse(uint64_t pack, absl::string_view uid, int64_t version) {
  return Numbered(absl::StrCat(Pack(pack), uid), static_cast<uint64_t>(version));
}
PackKey ParsePackKey(absl::string_view key) {
  PackKey parsed;
  parsed.pack = NumberAt(key, 1);
  // 1 byte of kind and 8 of the pack.
  if (key.size() > 9) {
    parsed.uid = std::string(key.substr(9, kIdLength));
    parsed.version = static_cast<int64_t>(NumberAt(key, 9 + kIdLength));
  }
  return parsed;
}

std::string DeadCheckpoints() { return "d"; }
std::string DeadCheckpoint(absl::string_view uid, int64_t version) {
  return Numbered(Owned('d', uid), static_cast<uint64_t>(version));
}
std::string DeadModels() { return "D"; }
std::string DeadModel(absl::string_view uid) { return Owned('D', uid); }

std::string Aliases(absl::string_view uid) { return Owned('a', uid); }
std::string Alias(absl::string_view uid, absl::string_view alias) {
  return absl::StrCat(Aliases(uid), alias);
}
std::string AliasOf(absl::string_view key) {
  return std::string(key.substr(1 + kIdLength));
}

std::string AliasMoves(absl::string_view uid) { return Owned('h', uid); }
std::string AliasMove(absl::string_view uid, uint64_t generation) {
  return Numbered(AliasMoves(uid), generation);
}
std::string Events(absl::string_view uid) { return Owned('e', uid); }
std::string Event(absl::string_view uid, uint64_t generation) {
  return Numbered(Events(uid), generation);
}
uint64_t GenerationOf(absl::string_view key) { return NumberAt(key, 1 + kIdLength); }

std::string AllLeases() { return "l"; }
std::string Leases(absl::string_view uid) { return Owned('l', uid); }
std::string Leases(absl::string_view uid, int64_t version) {
  return Numbered(Leases(uid), static_cast<uint64_t>(version));
}
std::string Lease(absl::string_view uid, int64_t version, absl::string_view holder) {
  return absl::StrCat(Leases(uid, version), holder);
}
LeaseKey ParseLeaseKey(absl::string_view key) {
  return {std::string(key.substr(1, kIdLength)),
          static_cast<int64_t>(NumberAt(key, 1 + kIdLength)),
          std::string(key.substr(1 + kIdLength + 8))};
}

std::string DamagedPacks() { return "b"; }
std::string DamagedPack(uint64_t pack) { return Numbered(DamagedPacks(), pack); }
uint64_t DamagedPackOf(absl::string_view key) { return NumberAt(key, 1); }

std::string RunningManifests() { return "w"; }
std::string RunningManifest(uint64_t manifest_id) {
  return Numbered(RunningManifests(), manifest_id);
}
uint64_t RunningManifestOf(absl::string_view key) { return NumberAt(key, 1); }

std::string ManifestPages(uint64_t manifest_id) { return Numbered("", manifest_id); }
std::string ManifestPage(uint64_t manifest_id, uint32_t page) {
  std::string key = ManifestPages(manifest_id);
  AppendNumber(page, key);
  return key;
}

std::string Chunks(uint64_t pack) { return Numbered("", pack); }
std::string Chunk(uint64_t pack, uint32_t sequence) {
  std::string key = Chunks(pack);
  AppendNumber(sequence, key);
  return key;
}

}  // namespace modelstore::storage::keys
