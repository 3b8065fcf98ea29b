#include "tests/storage/file_damage.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/journal_format.h"
#include "storage/rocksdb/pack_format.h"
#include "tests/storage/rocks_folder.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;

// Where the entries of a pack's file have their keys: in front of each lie the end
// of the block before (its restarts and trailer) and the entry's own lengths.
std::vector<int64_t> EntryKeys(const std::string& path) {
  const std::string bytes = FileBytes(path);
  const rocks::ChunkKey key = rocks::EncodeChunkKey({PackIn(path).value_or(0), 0});
  const std::string pack(key.data(), 8);
  std::vector<int64_t> keys;
  for (size_t at = bytes.find(pack); at != std::string::npos;
       at = bytes.find(pack, at + 1)) {
    keys.push_back(static_cast<int64_t>(at));
  }
  return keys;
}

// A place of a file, every tenth one in a header, an index or a footer.
int64_t PlaceIn(const std::string& path, std::mt19937_64& random) {
  const int64_t size = static_cast<int64_t>(fs::file_size(path));
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() %
                                static_cast<uint64_t>(std::max<int64_t>(n, 1)));
  };
  if (random() % 10 != 0) return below(size);
  if (!absl::EndsWith(path, ".sst")) {
    const std::vector<size_t> records = rocks::JournalRecords(FileBytes(path));
    if (records.empty()) return below(size);
    const auto record = static_cast<int64_t>(records[random() % records.size()]);
    return std::min(record + below(7), size - 1);
  }
  const std::vector<int64_t> keys = EntryKeys(path);
  if (!keys.empty() && random() % 3 == 0) {
    const int64_t place = keys[random() % keys.size()] - 20 + below(40);
    return std::clamp<int64_t>(place, 0, size - 1);
  }
  // The footer, or the index and the properties in front of it.
  return size - 1 - below(std::min<int64_t>(random() % 2 == 0 ? 53 : 1500, size));
}

}  // namespace

std::string DamageFile(const std::string& path, std::mt19937_64& random) {
  const int64_t place = PlaceIn(path, random);
  if (random() % 2 == 0) {
    CutFile(path, place);
    return absl::StrCat("cut ", path, " to ", place);
  }
  const int bit = static_cast<int>(random() % 8);
  FlipBitAt(path, place, bit);
  return absl::StrCat("flipped bit ", bit, " of byte ", place, " of ", path);
}

}  // namespace modelstore::storage
