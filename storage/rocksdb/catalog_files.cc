#include "storage/rocksdb/catalog_files.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "storage/rocksdb/status.h"

namespace modelstore::storage::rocks {
namespace {

// In the order of Space, after RocksDB's default family.
constexpr const char* kFamilies[] = {"records", "manifests", "chunks"};

}  // namespace

uint64_t FileNumber(absl::string_view name) {
  absl::ConsumePrefix(&name, "MANIFEST-");
  uint64_t number = 0;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &number) ? number : 0;
}

bool IsManifestName(absl::string_view name) {
  return absl::StartsWith(name, "MANIFEST-") && FileNumber(name) > 0;
}

std::string ManifestIn(absl::string_view current) {
  return absl::ConsumeSuffix(&current, "\n") && IsManifestName(current)
             ? std::string(current)
             : "";
}

absl::Status ListCatalog(rocksdb::FileSystem* fs, const std::string& path,
                         CatalogFiles* files) {
  std::vector<std::string> names;
  const rocksdb::IOStatus s = fs->GetChildren(path, {}, &names, nullptr);
  if (!s.ok()) return FromRocks(s, path);
  for (const std::string& name : names) {
    if (FileNumber(name) == 0) continue;
    if (absl::EndsWith(name, ".sst")) files->tables.push_back(name);
    if (absl::EndsWith(name, ".log")) files->wals.push_back(name);
    if (IsManifestName(name)) files->manifests.push_back(name);
  }
  for (auto* list : {&files->tables, &files->wals, &files->manifests}) {
    std::sort(list->begin(), list->end(),
              [](const auto& a, const auto& b) { return FileNumber(a) < FileNumber(b); });
  }
  return absl::OkStatus();
}

rocksdb::Status OpenCatalogDatabase(const rocksdb::Options& options,
                                    const std::string& path,
                                    std::unique_ptr<Database>* database) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  families.emplace_back(rocksdb::kDefaultColumnFamilyName, options);
  for (const char* name : kFamilies) families.emplace_back(name, options);
  *database = std::make_unique<Database>();
  rocksdb::DB* db = nullptr;
  const rocksdb::Status s =
      rocksdb::DB::Open(options, path, families, &(*database)->families, &db);
  (*database)->db.reset(db);
  return s;
}

}  // namespace modelstore::storage::rocks
