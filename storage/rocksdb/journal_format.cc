#include "storage/rocksdb/journal_format.h"

#include <algorithm>
#include <cstdint>

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kBlock = 32768;
constexpr size_t kHeader = 7;
// Whole, and the first, a middle, the last part of a record.
constexpr uint8_t kFirstRecycledType = 5;
constexpr uint8_t kLastRecycledType = 8;

}  // namespace

std::vector<size_t> JournalRecords(absl::string_view journal) {
  std::vector<size_t> records;
  for (size_t at = 0; at + kHeader <= journal.size();) {
    const size_t left = kBlock - at % kBlock;
    if (left < kHeader) {
      at += left;
      continue;
    }
    records.push_back(at);
    at += kHeader + static_cast<uint8_t>(journal[at + 4]) +
          256 * static_cast<size_t>(static_cast<uint8_t>(journal[at + 5]));
  }
  return records;
}

bool HasRecycledRecord(absl::string_view journal) {
  const std::vector<size_t> records = JournalRecords(journal);
  return std::any_of(records.begin(), records.end(), [&](size_t at) {
    const auto type = static_cast<uint8_t>(journal[at + kHeader - 1]);
    return type >= kFirstRecycledType && type <= kLastRecycledType;
  });
}

}  // namespace modelstore::storage::rocks
