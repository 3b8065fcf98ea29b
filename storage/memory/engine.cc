#include "storage/memory/engine.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "proto/contract/mutex.h"

namespace modelstore::storage {
namespace {

using Table = std::map<std::string, std::string, std::less<>>;
using Tables = std::array<Table, 3>;
// Chunks by sequence.
using Pack = std::map<uint32_t, std::shared_ptr<std::string>>;

int64_t TablesBytes(const Tables& tables) {
  int64_t bytes = 0;
  for (const Table& table : tables) {
    for (const auto& [key, value] : table) {
      bytes += static_cast<int64_t>(key.size() + value.size());
    }
  }
  return bytes;
}

int64_t PackBytes(const Pack& pack) {
  int64_t bytes = 0;
  for (const auto& [sequence, chunk] : pack) bytes += static_cast<int64_t>(chunk->size());
  return bytes;
}

// Returns by how many bytes the tables have grown.
int64_t Apply(const std::vector<CatalogBatch::Change>& changes, Tables& tables) {
  int64_t growth = 0;
  for (const auto& change : changes) {
    Table& table = tables[static_cast<size_t>(change.space)];
    if (auto it = table.find(change.key); it != table.end()) {
      growth -= static_cast<int64_t>(it->first.size() + it->second.size());
      table.erase(it);
    }
    if (change.value.has_value()) {
      growth += static_cast<int64_t>(change.key.size() + change.value->size());
      table.emplace(change.key, *change.value);
    }
  }
  return growth;
}

}  // namespace

// Shared by the disk and its engines. One mutex for everything: speed does not matter
// here.
struct MemoryDisk::State {
  Mutex mutex;
  Fault fault GUARDED_BY(mutex);
  bool reopen_fails GUARDED_BY(mutex) = false;
  int64_t calls GUARDED_BY(mutex) = 0;
  std::string last_call GUARDED_BY(mutex);
  int64_t capacity GUARDED_BY(mutex) = 0;  // 0: without bound
  int64_t used GUARDED_BY(mutex) = 0;      // by `current`, `packs` and open writers
  int64_t ballast GUARDED_BY(mutex) = 0;
  Tables current GUARDED_BY(mutex);
  Tables durable GUARDED_BY(mutex);
  std::vector<CatalogBatch::Change> buffered GUARDED_BY(mutex);
  std::map<uint64_t, Pack> packs GUARDED_BY(mutex);
  std::set<std::pair<uint64_t, uint32_t>> bad_sectors GUARDED_BY(mutex);

  enum class Outcome { kDo, kFail, kDoAndFail };

  // Counts a mutating call and returns whether it is to fail.
  Outcome Count(const char* call) REQUIRES(mutex) {
    ++calls;
    last_call = call;
    if (fault.at_call <= 0) return Outcome::kDo;
    if (--fault.at_call > 0) return Outcome::kDo;
    if (fault.for_good) fault.at_call = 1;
    return fault.after_effect ? Outcome::kDoAndFail : Outcome::kFail;
  }

  absl::Status Failure(const char* call) REQUIRES(mutex) {
    return absl::Status(fault.code, absl::StrCat(call, " failed on demand"));
  }

  bool HasRoom(int64_t bytes) REQUIRES(mutex) {
    return capacity == 0 || bytes <= 0 || used + bytes <= capacity;
  }
};

namespace {

using State = MemoryDisk::State;
using Outcome = State::Outcome;

class MemoryCatalog final : public Catalog {
 public:
  explicit MemoryCatalog(std::shared_ptr<State> disk) : disk_(std::move(disk)) {}

  absl::StatusOr<std::optional<std::string>> Get(Space space,
                                                 absl::string_view key) override {
    MutexLock lock(disk_->mutex);
    if (!health_.ok()) return health_;
    const Table& table = disk_->current[static_cast<size_t>(space)];
    auto it = table.find(std::string_view(key.data(), key.size()));
    if (it == table.end()) return std::optional<std::string>();
    return std::optional<std::string>(it->second);
  }

  absl::Status Scan(
      Space space, const KeyRange& range,
      absl::FunctionRef<bool(absl::string_view, absl::string_view)> visit) override;
  absl::Status Write(const CatalogBatch& batch, Durability durability) override;

  absl::Status Health() override {
    MutexLock lock(disk_->mutex);
    return health_;
  }

  absl::Status Reopen() override {
    MutexLock lock(disk_->mutex);
    if (disk_->reopen_fails) return absl::UnavailableError("reopening failed on demand");
    health_ = absl::OkStatus();
    return absl::OkStatus();
  }

 private:
  // ABORTED if an expectation does not hold, RESOURCE_EXHAUSTED if the disk is full.
  absl::Status Refusal(const CatalogBatch& batch) REQUIRES(disk_->mutex);

  const std::shared_ptr<State> disk_;
  absl::Status health_ GUARDED_BY(disk_->mutex);
};

absl::Status MemoryCatalog::Scan(
    Space space, const KeyRange& range,
    absl::FunctionRef<bool(absl::string_view, absl::string_view)> visit) {
  // Visits a copy, so that the visitor sees one state and may call the catalog.
  std::vector<std::pair<std::string, std::string>> entries;
  {
    MutexLock lock(disk_->mutex);
    if (!health_.ok()) return health_;
    const Table& table = disk_->current[static_cast<size_t>(space)];
    auto it = table.lower_bound(range.begin);
    const auto end = range.end.empty() ? table.end() : table.lower_bound(range.end);
    if (!range.end.empty() && range.end <= range.begin) it = end;
    entries.assign(it, end);
  }
  if (range.reverse) std::reverse(entries.begin(), entries.end());
  for (const auto& [key, value] : entries) {
    if (!visit(key, value)) break;
  }
  return absl::OkStatus();
}

absl::Status MemoryCatalog::Refusal(const CatalogBatch& batch) {
  for (const auto& expected : batch.expectations()) {
    const Table& table = disk_->current[static_cast<size_t>(expected.space)];
    auto it = table.find(expected.key);
    const bool holds = expected.value.has_value()
                           ? it != table.end() && it->second == *expected.value
                           : it == table.end();
    if (!holds) return absl::AbortedError("an expectation of the batch does not hold");
  }
  int64_t growth = 0;
  for (const auto& change : batch.changes()) {
    if (change.value) growth += static_cast<int64_t>(change.value->size());
  }
  // As in a log, each change needs space, deletions included.
  growth += static_cast<int64_t>(batch.changes().size());
  if (!disk_->HasRoom(growth)) {
    return MakeError(ERROR_REASON_DISK_FULL, "the disk is full");
  }
  return absl::OkStatus();
}

// Both tables change as RocksDB's would: `current` at once, `durable` with the next
// durable write, which also makes the buffered ones durable.
absl::Status MemoryCatalog::Write(const CatalogBatch& batch, Durability durability) {
  MutexLock lock(disk_->mutex);
  if (!health_.ok()) return health_;
  const Outcome outcome = disk_->Count("catalog.write");
  if (absl::Status refusal = Refusal(batch); !refusal.ok()) return refusal;
  if (outcome != Outcome::kFail) {
    disk_->used += Apply(batch.changes(), disk_->current);
    disk_->buffered.insert(disk_->buffered.end(), batch.changes().begin(),
                           batch.changes().end());
    if (durability == Durability::kDurable) {
      Apply(disk_->buffered, disk_->durable);
      disk_->buffered.clear();
    }
  }
  if (outcome == Outcome::kDo) return absl::OkStatus();
  // Refused before the journal, so not applied. UNAVAILABLE stands for a fault of the
  // journal: undecided.
  if (outcome == Outcome::kFail && disk_->fault.code != absl::StatusCode::kUnavailable) {
    return disk_->Failure("catalog.write");
  }
  health_ = absl::UnavailableError("the catalog needs to be reopened");
  return UndecidedError("catalog.write failed on demand");
}

class MemoryPackWriter final : public PackWriter {
 public:
  MemoryPackWriter(std::shared_ptr<State> disk, uint64_t pack)
      : disk_(std::move(disk)), pack_(pack) {}
  ~MemoryPackWriter() override {
    MutexLock lock(disk_->mutex);
    disk_->used -= size_bytes_;
  }

  uint64_t pack() const override { return pack_; }
  int64_t size_bytes() const override { return size_bytes_; }

  absl::StatusOr<ChunkId> Append(absl::Span<const absl::string_view> fragments) override {
    const std::string chunk = absl::StrJoin(fragments, "");
    MutexLock lock(disk_->mutex);
    if (!failed_.ok()) return failed_;
    const Outcome outcome = disk_->Count("pack.append");
    const int64_t bytes = static_cast<int64_t>(chunk.size());
    if (!disk_->HasRoom(bytes)) {
      return failed_ = MakeError(ERROR_REASON_DISK_FULL, "the disk is full");
    }
    if (outcome != Outcome::kDo) return failed_ = disk_->Failure("pack.append");
    chunks_[next_sequence_] = std::make_shared<std::string>(chunk);
    size_bytes_ += bytes;
    disk_->used += bytes;
    return ChunkId{pack_, next_sequence_++};
  }
  void Skip(uint32_t numbers) override { next_sequence_ += numbers; }

  absl::Status Finish() override {
    MutexLock lock(disk_->mutex);
    if (!failed_.ok()) return failed_;
    if (disk_->Count("pack.finish") != Outcome::kDo) {
      return failed_ = disk_->Failure("pack.finish");
    }
    finished_ = true;
    return absl::OkStatus();
  }

  bool finished() const { return finished_; }

  // Returns the chunks. Their space is no longer accounted to this writer.
  Pack Take() {
    size_bytes_ = 0;
    return std::move(chunks_);
  }

 private:
  const std::shared_ptr<State> disk_;
  const uint64_t pack_;
  Pack chunks_;
  uint32_t next_sequence_ = 0;
  int64_t size_bytes_ = 0;
  bool finished_ = false;
  absl::Status failed_;
};

class MemoryChunkStore final : public ChunkStore {
 public:
  explicit MemoryChunkStore(std::shared_ptr<State> disk) : disk_(std::move(disk)) {}

  absl::StatusOr<std::unique_ptr<PackWriter>> NewPack(uint64_t pack) override {
    MutexLock lock(disk_->mutex);
    if (!health_.ok()) return health_;
    return std::make_unique<MemoryPackWriter>(disk_, pack);
  }
  absl::Status Publish(std::unique_ptr<PackWriter> writer) override;
  absl::StatusOr<PinnedBytes> Read(ChunkId chunk) override;
  absl::StatusOr<std::vector<PackInfo>> ListPacks() override;
  absl::Status DropPacks(absl::Span<const uint64_t> packs) override;

  absl::Status Health() override {
    MutexLock lock(disk_->mutex);
    return health_;
  }
  absl::Status Reopen(absl::Span<const uint64_t> expected) override {
    MutexLock lock(disk_->mutex);
    health_ = absl::OkStatus();
    return absl::OkStatus();
  }

 private:
  absl::Status Fail(const char* call) REQUIRES(disk_->mutex) {
    absl::Status status = disk_->Failure(call);
    if (absl::IsUnavailable(status)) health_ = status;
    return status;
  }

  const std::shared_ptr<State> disk_;
  absl::Status health_ GUARDED_BY(disk_->mutex) =
      absl::UnavailableError("the chunk store is not open");
};

absl::Status MemoryChunkStore::Publish(std::unique_ptr<PackWriter> writer) {
  auto& pack = static_cast<MemoryPackWriter&>(*writer);
  MutexLock lock(disk_->mutex);
  absl::Status status = health_;
  if (status.ok() && !pack.finished()) {
    status = absl::FailedPreconditionError("the pack is not finished");
  }
  if (status.ok()) {
    const Outcome outcome = disk_->Count("pack.publish");
    if (outcome != Outcome::kFail) disk_->packs[pack.pack()] = pack.Take();
    if (outcome != Outcome::kDo) status = Fail("pack.publish");
  }
  lock.Unlock();  // the writer's destructor takes it
  writer.reset();
  return status;
}

absl::StatusOr<PinnedBytes> MemoryChunkStore::Read(ChunkId chunk) {
  MutexLock lock(disk_->mutex);
  if (!health_.ok()) return health_;
  auto it = disk_->packs.find(chunk.pack);
  if (it == disk_->packs.end() || !it->second.contains(chunk.sequence)) {
    return absl::NotFoundError(
        absl::StrCat("pack ", chunk.pack, " holds no chunk ", chunk.sequence));
  }
  if (disk_->bad_sectors.contains({chunk.pack, chunk.sequence})) {
    return absl::UnavailableError("Input/output error");
  }
  const std::shared_ptr<std::string>& bytes = it->second.at(chunk.sequence);
  return PinnedBytes(*bytes, bytes);
}

absl::StatusOr<std::vector<PackInfo>> MemoryChunkStore::ListPacks() {
  MutexLock lock(disk_->mutex);
  if (!health_.ok()) return health_;
  std::vector<PackInfo> packs;
  for (const auto& [id, pack] : disk_->packs) packs.push_back({id, PackBytes(pack)});
  return packs;
}

absl::Status MemoryChunkStore::DropPacks(absl::Span<const uint64_t> packs) {
  MutexLock lock(disk_->mutex);
  if (!health_.ok()) return health_;
  const Outcome outcome = disk_->Count("packs.drop");
  for (uint64_t id : packs) {
    if (outcome == Outcome::kFail) break;
    auto it = disk_->packs.find(id);
    if (it == disk_->packs.end()) continue;
    disk_->used -= PackBytes(it->second);
    disk_->packs.erase(it);
  }
  return outcome == Outcome::kDo ? absl::OkStatus() : Fail("packs.drop");
}

}  // namespace

MemoryDisk::MemoryDisk() : state_(std::make_shared<State>()) {}
MemoryDisk::~MemoryDisk() = default;

void MemoryDisk::SetFault(const Fault& fault) {
  MutexLock lock(state_->mutex);
  state_->fault = fault;
}

void MemoryDisk::SetReopenFails(bool fails) {
  MutexLock lock(state_->mutex);
  state_->reopen_fails = fails;
}

int64_t MemoryDisk::calls() const {
  MutexLock lock(state_->mutex);
  return state_->calls;
}

std::string MemoryDisk::last_call() const {
  MutexLock lock(state_->mutex);
  return state_->last_call;
}

void MemoryDisk::LosePower() {
  MutexLock lock(state_->mutex);
  state_->used += TablesBytes(state_->durable) - TablesBytes(state_->current);
  state_->current = state_->durable;
  state_->buffered.clear();
}

void MemoryDisk::SetCapacity(int64_t bytes) {
  MutexLock lock(state_->mutex);
  state_->capacity = bytes;
}

int64_t MemoryDisk::used_bytes() const {
  MutexLock lock(state_->mutex);
  return state_->used - state_->ballast;
}

bool MemoryDisk::FlipBit(uint64_t pack, uint32_t sequence, int64_t bit) {
  MutexLock lock(state_->mutex);
  auto it = state_->packs.find(pack);
  if (it == state_->packs.end() || !it->second.contains(sequence)) return false;
  // Changes a copy: running reads keep the original bytes.
  auto hurt = std::make_shared<std::string>(*it->second[sequence]);
  if (bit < 0 || bit >= static_cast<int64_t>(hurt->size()) * 8) return false;
  (*hurt)[static_cast<size_t>(bit / 8)] ^= static_cast<char>(1 << (bit % 8));
  it->second[sequence] = std::move(hurt);
  return true;
}

void MemoryDisk::SetBadSector(uint64_t pack, uint32_t sequence, bool bad) {
  MutexLock lock(state_->mutex);
  if (bad) {
    state_->bad_sectors.emplace(pack, sequence);
  } else {
    state_->bad_sectors.erase({pack, sequence});
  }
}

Engine OpenMemoryEngine(std::shared_ptr<MemoryDisk> disk) {
  std::shared_ptr<State> state = disk->state();
  Engine engine;
  engine.catalog = std::make_unique<MemoryCatalog>(state);
  engine.chunks = std::make_unique<MemoryChunkStore>(state);
  engine.free_bytes = [state]() -> absl::StatusOr<int64_t> {
    MutexLock lock(state->mutex);
    if (state->capacity == 0) return std::numeric_limits<int64_t>::max();
    return std::max<int64_t>(0, state->capacity - state->used);
  };
  // The ballast leaves space for the batch of a delete.
  engine.release_ballast = [state] {
    MutexLock lock(state->mutex);
    state->used -= std::exchange(state->ballast, 0);
  };
  engine.restore_ballast = [state] {
    MutexLock lock(state->mutex);
    if (state->ballast > 0 || !state->HasRoom(MemoryDisk::kBallastBytes)) return;
    state->ballast = MemoryDisk::kBallastBytes;
    state->used += MemoryDisk::kBallastBytes;
  };
  engine.restore_ballast();
  return engine;
}

}  // namespace modelstore::storage
