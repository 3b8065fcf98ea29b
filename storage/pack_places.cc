#include "storage/pack_places.h"

#include <utility>

#include "storage/keys.h"
#include "storage/record_codec.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Moves that one read follows: a pack may move again between the look-up and the read.
constexpr int kMoves = 8;

}  // namespace

absl::Status ScanPackRecords(
    Catalog& catalog,
    absl::FunctionRef<void(uint64_t pack, const v1::PackRecord& record)> visit) {
  absl::Status status;
  RETURN_IF_ERROR(catalog.Scan(Space::kRecords, PrefixRange(keys::Packs()),
                               [&](absl::string_view key, absl::string_view value) {
                                 const keys::PackKey parsed = keys::ParsePackKey(key);
                                 if (!parsed.uid.empty()) return true;  // one of its uses
                                 const absl::StatusOr<v1::PackRecord> record =
                                     Decode<v1::PackRecord>(value);
                                 if (record.ok()) visit(parsed.pack, *record);
                                 status = record.status();
                                 return status.ok();
                               }));
  return status;
}

ChunkId PackPlaces::Locate(ChunkId chunk) {
  MutexLock lock(mutex_);
  auto it = places_.find(chunk.pack);
  if (it == places_.end()) return chunk;
  return {it->second.pack, chunk.sequence + it->second.shift};
}

absl::Status PackPlaces::LookUp(uint64_t pack) {
  ASSIGN_OR_RETURN(const std::optional<v1::PackRecord> record,
                   GetRecord<v1::PackRecord>(*engine_.catalog, keys::Pack(pack)));
  if (record.has_value() && record->has_place()) Moved(pack, record->place());
  return absl::OkStatus();
}

void PackPlaces::Moved(uint64_t pack, const v1::PackPlace& place) {
  MutexLock lock(mutex_);
  places_[pack] = {place.pack(), place.shift()};
}

void PackPlaces::Forget(uint64_t pack) {
  MutexLock lock(mutex_);
  places_.erase(pack);
}

absl::StatusOr<PinnedBytes> PackPlaces::Read(ChunkId chunk) {
  if (keys::IsInlinePack(chunk.pack)) {
    ASSIGN_OR_RETURN(
        std::optional<std::string> bytes,
        engine_.catalog->Get(Space::kChunks, keys::Chunk(chunk.pack, chunk.sequence)));
    if (!bytes.has_value()) return absl::NotFoundError("no such chunk");
    auto owner = std::make_shared<std::string>(*std::move(bytes));
    return PinnedBytes(*owner, owner);
  }
  ChunkId at = Locate(chunk);
  absl::StatusOr<PinnedBytes> bytes = engine_.chunks->Read(at);
  for (int move = 0; move < kMoves && absl::IsNotFound(bytes.status()); ++move) {
    RETURN_IF_ERROR(LookUp(chunk.pack));
    const ChunkId now = Locate(chunk);
    // It did not move: the chunk is gone.
    if (now == at) break;
    at = now;
    bytes = engine_.chunks->Read(at);
  }
  return bytes;
}

}  // namespace modelstore::storage
