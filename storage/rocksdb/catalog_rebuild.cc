#include "storage/rocksdb/catalog_rebuild.h"

#include <array>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/write_batch.h"
#include "storage/rocksdb/options.h"
#include "storage/rocksdb/status.h"
#include "storage/rocksdb/table_format.h"
#include "storage/rocksdb/table_scan.h"

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kBatchBytes = size_t{1} << 20;
constexpr size_t kFamilyCount = 4;
// A batch in a WAL starts with its first sequence number (8 bytes) and count (4).
constexpr size_t kBatchHead = 12;

class Rebuild {
 public:
  Rebuild(Folder& folder, const std::shared_ptr<EngineFileSystem>& fs,
          uint64_t newest_manifest)
      : folder_(folder), fs_(fs), newest_manifest_(newest_manifest) {}

  rocksdb::Status Open(rocksdb::Env* env);
  rocksdb::Status AddTable(const std::string& name, RebuiltCatalog* rebuilt);
  rocksdb::Status AddWal(const ValidWal& wal);
  rocksdb::Status Finish();

  // Writes an entry if it is newer than the one written before for its key. `order` is
  // the file number, which decides between equal sequence numbers.
  rocksdb::Status Take(uint32_t family, uint64_t order, const TableEntry& entry);

 private:
  rocksdb::Status WriteOut();

  Folder& folder_;
  const std::shared_ptr<EngineFileSystem> fs_;
  const uint64_t newest_manifest_;
  std::unique_ptr<Database> database_;
  rocksdb::WriteBatch batch_;
  // Age of the newest entry of each key: sequence number, then file number.
  std::array<absl::flat_hash_map<std::string, std::pair<uint64_t, uint64_t>>,
             kFamilyCount>
      newest_;
};

// Visits the changes of a WAL batch. Each change has the next sequence number, as
// RocksDB numbers them.
class Replay final : public rocksdb::WriteBatch::Handler {
 public:
  Replay(Rebuild* rebuild, uint64_t sequence, uint64_t order)
      : rebuild_(rebuild), sequence_(sequence), order_(order) {}

  rocksdb::Status PutCF(uint32_t family, const rocksdb::Slice& key,
                        const rocksdb::Slice& value) override {
    return Take(family, key, value, false);
  }
  rocksdb::Status DeleteCF(uint32_t family, const rocksdb::Slice& key) override {
    return Take(family, key, rocksdb::Slice(), true);
  }
  rocksdb::Status MarkNoop(bool) override { return rocksdb::Status::OK(); }

 private:
  rocksdb::Status Take(uint32_t family, const rocksdb::Slice& key,
                       const rocksdb::Slice& value, bool is_deletion) {
    return rebuild_->Take(family, order_,
                          {absl::string_view(key.data(), key.size()), sequence_++,
                           is_deletion, absl::string_view(value.data(), value.size())});
  }

  Rebuild* const rebuild_;
  uint64_t sequence_;
  const uint64_t order_;
};

rocksdb::Status Rebuild::Open(rocksdb::Env* env) {
  return OpenCatalogDatabase(CatalogOptions(env, folder_.shared_from_this()),
                             folder_.new_catalog(), &database_);
}

rocksdb::Status Rebuild::Take(uint32_t family, uint64_t order, const TableEntry& entry) {
  if (family >= kFamilyCount) {
    return rocksdb::Status::Corruption("an entry of a column family that does not exist");
  }
  // Tables and WALs may contain the same entry several times, in any order.
  const std::pair<uint64_t, uint64_t> age(entry.sequence, order);
  const auto [known, is_new] = newest_[family].try_emplace(std::string(entry.key), age);
  if (!is_new && known->second >= age) return rocksdb::Status::OK();
  // Deletions are written too: they must hide an older value that was written before.
  known->second = age;
  rocksdb::ColumnFamilyHandle* handle = database_->families[family];
  const rocksdb::Slice key(entry.key.data(), entry.key.size());
  const rocksdb::Slice value(entry.value.data(), entry.value.size());
  rocksdb::Status s =
      entry.is_deletion ? batch_.Delete(handle, key) : batch_.Put(handle, key, value);
  return s.ok() && batch_.GetDataSize() >= kBatchBytes ? WriteOut() : s;
}

rocksdb::Status Rebuild::WriteOut() {
  rocksdb::WriteOptions options;
  // Finish() flushes everything, so a WAL would only double the writes.
  options.disableWAL = true;
  const rocksdb::Status s = database_->db->Write(options, &batch_);
  batch_.Clear();
  return s;
}

rocksdb::Status Rebuild::AddTable(const std::string& name, RebuiltCatalog* rebuilt) {
  const std::string path = absl::StrCat(folder_.catalog(), "/", name);
  bool has_end = false;
  rocksdb::Status s = HasTableFooter(fs_.get(), path, &has_end);
  if (!s.ok()) return s;
  if (!has_end && FileNumber(name) < newest_manifest_) {
    return rocksdb::Status::Corruption(path, "the table is truncated");
  }
  if (!has_end) {
    absl::StrAppend(
        &rebuilt->left_out, "; ", name,
        " is incomplete and was left out (its entries are lost unless a crash "
        "interrupted writing it)");
    return s;
  }
  ++rebuilt->tables;
  uint32_t family = 0;
  const uint64_t order = FileNumber(name);
  return ScanTable(fs_.get(), path, &family,
                   [&](const TableEntry& entry) { return Take(family, order, entry); });
}

rocksdb::Status Rebuild::AddWal(const ValidWal& wal) {
  for (const std::string& record : wal.records) {
    uint64_t sequence = 0;
    uint32_t count = 0;
    if (!ReadBatchHead(record, &sequence, &count)) {
      return rocksdb::Status::Corruption(wal.name, "a batch is too short");
    }
    Replay replay(this, sequence, FileNumber(wal.name));
    const rocksdb::Status s = rocksdb::WriteBatch(record).Iterate(&replay);
    if (!s.ok()) return s;
  }
  return rocksdb::Status::OK();
}

rocksdb::Status Rebuild::Finish() {
  rocksdb::Status s = WriteOut();
  rocksdb::FlushOptions options;
  options.wait = true;
  if (s.ok()) s = database_->db->Flush(options, database_->families);
  database_.reset();
  return s;
}

}  // namespace

bool ReadBatchHead(const std::string& batch, uint64_t* sequence, uint32_t* count) {
  if (batch.size() < kBatchHead) return false;
  *sequence = *count = 0;
  for (size_t i = 8; i-- > 0;)
    *sequence = *sequence << 8 | static_cast<uint8_t>(batch[i]);
  for (size_t i = 12; i-- > 8;) *count = *count << 8 | static_cast<uint8_t>(batch[i]);
  return true;
}

absl::Status RebuildCatalog(Folder& folder, const std::shared_ptr<EngineFileSystem>& fs,
                            rocksdb::Env* env, const CatalogFiles& files,
                            uint64_t newest_manifest, const std::vector<ValidWal>& wals,
                            RebuiltCatalog* rebuilt) {
  Rebuild rebuild(folder, fs, newest_manifest);
  rocksdb::Status s = rebuild.Open(env);
  for (const std::string& table : files.tables) {
    if (s.ok()) s = rebuild.AddTable(table, rebuilt);
  }
  for (const ValidWal& wal : wals) {
    if (s.ok()) s = rebuild.AddWal(wal);
  }
  if (s.ok()) s = rebuild.Finish();
  if (s.IsCorruption() || s.IsNotSupported()) {
    return absl::DataLossError(
        absl::StrCat("neither its MANIFEST nor this table is readable: ", s.ToString()));
  }
  return FromRocks(s, "rebuild the catalog");
}

}  // namespace modelstore::storage::rocks
