#include "tests/storage/file_damage.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/rocksdb/pack_format.h"
#include "tests/storage/rocks_folder.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;

// Where the records of a WAL or MANIFEST have their headers.
std::vector<int64_t> JournalHeaders(const std::string& path) {
  constexpr int64_t kBlock = 32768;
  constexpr int64_t kHeader = 7;
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const int64_t size = static_cast<int64_t>(bytes.size());
  std::vector<int64_t> headers;
  for (int64_t at = 0; at + kHeader <= size;) {
    const int64_t left = kBlock - at % kBlock;
    if (left < kHeader) {
      at += left;
      continue;
    }
    headers.push_back(at);
    const auto byte = [&](int64_t i) { return int64_t{static_cast<uint8_t>(bytes[at + i])}; };
    at += kHeader + byte(4) + 256 * byte(5);
  }
  return headers;
}

// Where the entries of a pack's file have their keys: in front of each lie the end
// of the block before (its restarts and trailer) and the entry's own lengths.
std::vector<int64_t> EntryKeys(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const rocks::ChunkKey key = rocks::EncodeChunkKey({PackIn(path).value_or(0), 0});
  const std::string pack(key.data(), 8);
  std::vector<int64_t> keys;
  for (size_t at = bytes.find(pack); at != std::string::npos; at = bytes.find(pack, at + 1)) {
    keys.push_back(static_cast<int64_t>(at));
  }
  return keys;
}

// A place of a file, every tenth one in a header, an index or a footer.
int64_t PlaceIn(const std::string& path, std::mt19937_64& random) {
  const int64_t size = static_cast<int64_t>(fs::file_size(path));
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(std::max<int64_t>(n, 1)));
  };
  if (random() % 10 != 0) return below(size);
  if (!absl::EndsWith(path, ".sst")) {
    const std::vector<int64_t> headers = JournalHeaders(path);
    if (headers.empty()) return below(size);
    return std::min(headers[random() % headers.size()] + below(7), size - 1);
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
