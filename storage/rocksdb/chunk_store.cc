#include "storage/rocksdb/chunk_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/convenience.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/pack_format.h"
#include "storage/rocksdb/pack_recovery.h"
#include "storage/rocksdb/status.h"
#include "storage/rocksdb/table_scan.h"

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kPoolFreeBytes = size_t{32} << 20;
// Disk space that a change of the pack list may need in the MANIFEST, generously.
constexpr int64_t kPackChangeBytes = int64_t{32} << 10;
constexpr absl::Duration kCloseTimeout = absl::Seconds(30);

// Owns a chunk in the block that RocksDB read it into, without a copy. The cache is
// declared first, so that it outlives the slice, which returns the block to it. The
// database may be closed while chunks are in use.
struct Value {
  std::shared_ptr<rocksdb::Cache> cache;
  rocksdb::PinnableSlice slice;
};

// A cache of capacity 0: a block is freed when its last reader releases it. RocksDB needs
// a cache to return blocks without copying them, and allocates blocks from its allocator.
std::shared_ptr<rocksdb::Cache> MakeCache(std::shared_ptr<BufferPool> pool) {
  rocksdb::LRUCacheOptions options;
  options.capacity = 0;
  options.num_shard_bits = 0;
  options.memory_allocator = std::move(pool);
  return rocksdb::NewLRUCache(options);
}

absl::Status Reopening() {
  return absl::UnavailableError("the chunk store is being reopened; try again");
}

}  // namespace

RocksChunkStore::RocksChunkStore(std::shared_ptr<Folder> folder)
    : folder_(std::move(folder)),
      fs_(std::make_shared<EngineFileSystem>(folder_->fs(), folder_->packs(),
                                             folder_->incoming())),
      env_(rocksdb::NewCompositeEnv(fs_)),
      pool_(std::make_shared<BufferPool>(kPoolFreeBytes)),
      cache_(MakeCache(pool_)),
      writers_(std::make_shared<Writers>()),
      health_(absl::UnavailableError("the chunk store is not open yet")) {}

RocksChunkStore::~RocksChunkStore() = default;

absl::StatusOr<std::unique_ptr<PackWriter>> RocksChunkStore::NewPack(uint64_t pack) {
  absl::Status health = Health();
  if (!health.ok()) return health;
  {
    MutexLock lock(packs_mutex_);
    if (packs_.count(pack) > 0) {
      return absl::AlreadyExistsError(absl::StrCat("pack ", pack, " exists already"));
    }
  }
  {
    MutexLock lock(writers_->mutex);
    if (!writers_->names.insert(PackFileName(pack)).second) {
      return absl::AlreadyExistsError(absl::StrCat("pack ", pack, " is being written"));
    }
  }
  auto writer = std::make_unique<RocksPackWriter>(
      pack, folder_, [writers = writers_](const std::string& name) {
        MutexLock lock(writers->mutex);
        writers->names.erase(name);
      });
  absl::Status status = writer->Open();
  if (!status.ok()) return status;
  return std::unique_ptr<PackWriter>(std::move(writer));
}

absl::Status RocksChunkStore::Publish(std::unique_ptr<PackWriter> writer) {
  auto* rocks = static_cast<RocksPackWriter*>(writer.get());
  if (!rocks->finished())
    return absl::FailedPreconditionError("the pack is not finished");
  MutexLock lock(change_mutex_);
  absl::Status status = Health();
  if (!status.ok()) return status;
  DbGate::Use use = gate_.Enter();
  if (!use) return Reopening();
  // A MANIFEST write that fails on a full disk would close the store.
  status = folder_->CheckSpace(kPackChangeBytes);
  if (!status.ok()) return status;
  uint64_t size = 0;
  const rocksdb::IOStatus sized = fs_->GetFileSize(rocks->path(), {}, &size, nullptr);
  if (!sized.ok()) return FromRocks(sized, "size of a finished pack");
  fs_->TakeArrivals();
  const int64_t journal_appends = fs_->journal_appends();
  // First, as RocksDB's assertions would abort the process over such damage.
  rocksdb::Status s = CheckOuterBlocks(fs_.get(), rocks->path());
  if (s.ok()) s = use->db->IngestExternalFile({rocks->path()}, PackIngestOptions());
  if (!s.ok()) {
    fs_->DeleteArrivals();
    return ClassifyFailure(s, absl::StrCat("publish pack ", rocks->pack()),
                           fs_->journal_appends() != journal_appends);
  }
  Pack pack;
  pack.size_bytes = static_cast<int64_t>(size);
  // From here on the file system refuses to delete the file, except for DropPacks().
  for (const std::string& name : fs_->TakeArrivals()) {
    fs_->Keep(name);
    pack.file = name;
  }
  MutexLock packs_lock(packs_mutex_);
  packs_[rocks->pack()] = std::move(pack);
  return absl::OkStatus();
}

// Does not check Health(): after a failed change of the pack list RocksDB still reads.
absl::StatusOr<PinnedBytes> RocksChunkStore::Read(ChunkId chunk) {
  DbGate::Use use = gate_.Enter();
  if (!use) return Reopening();
  const ChunkKey bytes = EncodeChunkKey(chunk);
  const rocksdb::Slice key(bytes.data(), bytes.size());
  auto value = std::make_shared<Value>();
  value->cache = cache_;
  rocksdb::ReadOptions options;
  // The caller verifies the chunk's digest, which covers more than the block checksum.
  // RocksDB still parses the block before, and a build with assertions, such as Debian's,
  // aborts the process if it is malformed. ScopedBlockValidation rejects such blocks.
  options.verify_checksums = false;
  rocksdb::Status s;
  {
    ScopedBlockValidation sound;
    s = use->db->Get(options, use->db->DefaultColumnFamily(), key, &value->slice);
  }
  if (!s.ok()) {
    // Again with RocksDB's own checks, which tell damage from absence, and which reopen
    // a table whose first open failed.
    value->slice.Reset();
    options.verify_checksums = true;
    s = use->db->Get(options, use->db->DefaultColumnFamily(), key, &value->slice);
  }
  if (!s.ok()) {
    return FromRocks(s, absl::StrCat("chunk ", chunk.sequence, " of pack ", chunk.pack));
  }
  if (!value->slice.IsPinned()) copied_reads_.fetch_add(1, std::memory_order_relaxed);
  const absl::string_view view(value->slice.data(), value->slice.size());
  return PinnedBytes(view, std::move(value));
}

absl::StatusOr<std::vector<PackInfo>> RocksChunkStore::ListPacks() {
  absl::Status health = Health();
  if (!health.ok()) return health;
  MutexLock lock(packs_mutex_);
  std::vector<PackInfo> infos;
  infos.reserve(packs_.size());
  for (const auto& [id, pack] : packs_) infos.push_back({id, pack.size_bytes});
  return infos;
}

absl::Status RocksChunkStore::DropPacks(absl::Span<const uint64_t> packs) {
  MutexLock lock(change_mutex_);
  absl::Status status = Health();
  if (!status.ok()) return status;
  DbGate::Use use = gate_.Enter();
  if (!use) return Reopening();
  std::vector<std::pair<uint64_t, std::string>> known;
  {
    MutexLock packs_lock(packs_mutex_);
    for (uint64_t id : packs) {
      const auto it = packs_.find(id);
      if (it != packs_.end()) known.emplace_back(id, it->second.file);
      // The pack may be a file that recovery moved to quarantine.
      fs_->DeleteFile(absl::StrCat(folder_->quarantine(), "/", PackFileName(id)), {},
                      nullptr)
          .PermitUncheckedError();
    }
  }
  if (known.empty()) return absl::OkStatus();
  status = folder_->CheckSpace(kPackChangeBytes);
  if (!status.ok()) return status;
  std::vector<std::pair<ChunkKey, ChunkKey>> keys;
  keys.reserve(known.size());
  std::vector<rocksdb::Slice> ends;
  ends.reserve(2 * known.size());
  std::vector<rocksdb::RangePtr> ranges;
  for (const auto& [id, file] : known) {
    keys.emplace_back(EncodeChunkKey({id, 0}), EncodeChunkKey({id, UINT32_MAX}));
    ends.emplace_back(keys.back().first.data(), kChunkKeyBytes);
    ends.emplace_back(keys.back().second.data(), kChunkKeyBytes);
    ranges.emplace_back(&ends[ends.size() - 2], &ends.back());
    // Lets RocksDB delete this file.
    fs_->Release(file);
  }
  const int64_t journal_appends = fs_->journal_appends();
  const rocksdb::Status s = rocksdb::DeleteFilesInRanges(
      use->db.get(), use->db->DefaultColumnFamily(), ranges.data(), ranges.size());
  if (!s.ok()) {
    // RocksDB may still use the files.
    for (const auto& [id, file] : known) fs_->Keep(file);
    return ClassifyFailure(s, "drop packs", fs_->journal_appends() != journal_appends);
  }
  MutexLock packs_lock(packs_mutex_);
  for (const auto& [id, file] : known) packs_.erase(id);
  return absl::OkStatus();
}

absl::Status RocksChunkStore::ClassifyFailure(const rocksdb::Status& status,
                                              absl::string_view what,
                                              bool journal_touched) {
  // If the MANIFEST was not appended to, RocksDB is unchanged and stays usable.
  if (journal_touched) {
    SetHealth(absl::UnavailableError(
        absl::StrCat("the chunk store is closed after a failed change and will be "
                     "reopened: ",
                     status.ToString())));
  }
  return FromRocks(status, what);
}

absl::Status RocksChunkStore::Health() {
  MutexLock lock(health_mutex_);
  return health_;
}

void RocksChunkStore::SetHealth(absl::Status health) {
  MutexLock lock(health_mutex_);
  health_ = std::move(health);
}

// Reads fail from Close() to Open(). Chunks returned before stay valid: they own their
// block.
absl::Status RocksChunkStore::Reopen(absl::Span<const uint64_t> expected) {
  MutexLock lock(change_mutex_);
  SetHealth(Reopening());
  absl::Status status = gate_.Close(kCloseTimeout);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Database>> database =
      OpenPacks(*folder_, *fs_, PackOptions(env_.get(), folder_, cache_), expected);
  if (!database.ok()) {
    // A descriptor limit needs an operator; other errors may be transient.
    SetHealth(
        IsTooManyOpenFiles(database.status())
            ? database.status()
            : absl::UnavailableError(absl::StrCat("the chunk store could not be opened: ",
                                                  database.status().message())));
    return database.status();
  }
  // Files of live writers stay: their saves continue after the reopen.
  CleanIncoming();
  LoadPacks((*database)->db.get());
  gate_.Open(*std::move(database));
  SetHealth(absl::OkStatus());
  return absl::OkStatus();
}

void RocksChunkStore::LoadPacks(rocksdb::DB* db) {
  std::vector<rocksdb::LiveFileMetaData> files;
  db->GetLiveFilesMetaData(&files);
  MutexLock lock(packs_mutex_);
  packs_.clear();
  for (const auto& file : files) {
    const std::optional<ChunkId> first = DecodeChunkKey(file.smallestkey);
    if (!first.has_value()) continue;
    packs_[first->pack] = {static_cast<int64_t>(file.size),
                           TableFileName(file.file_number)};
  }
}

void RocksChunkStore::CleanIncoming() {
  std::vector<std::string> names;
  if (!fs_->GetChildren(folder_->incoming(), {}, &names, nullptr).ok()) return;
  MutexLock lock(writers_->mutex);
  for (const std::string& name : names) {
    if (writers_->names.count(name) > 0 || name == "." || name == "..") continue;
    fs_->DeleteFile(absl::StrCat(folder_->incoming(), "/", name), {}, nullptr)
        .PermitUncheckedError();
  }
}

}  // namespace modelstore::storage::rocks
