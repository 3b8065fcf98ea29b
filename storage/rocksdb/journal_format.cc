#include "storage/rocksdb/journal_format.h"

#include <algorithm>
#include <array>
#include <cstdint>

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kBlock = 32768;
constexpr size_t kHeader = 7;
// Whole, and the first, a middle, the last part of a record.
constexpr uint8_t kFirstRecycledType = 5;
constexpr uint8_t kLastRecycledType = 8;

enum Part : uint8_t { kWholeRecord = 1, kFirstPart = 2, kMiddlePart = 3, kLastPart = 4 };

bool IsRecycled(uint8_t type) {
  return type >= kFirstRecycledType && type <= kLastRecycledType;
}

uint8_t ByteAt(absl::string_view bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]);
}

// Castagnoli's polynomial, reversed.
constexpr std::array<uint32_t, 256> Crc32cTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}

uint32_t Crc32c(absl::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = Crc32cTable();
  uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc = crc >> 8 ^ kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xff];
  }
  return ~crc;
}

// RocksDB stores a checksum turned by 15 bits and shifted by a constant.
uint32_t Masked(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

}  // namespace

Journal ReadJournal(absl::string_view journal) {
  Journal result;
  std::string record;
  bool inside = false;  // of a record in parts
  const auto ends = [&](Journal::End end) {
    result.end = end;
    return result;
  };
  for (size_t at = 0; at < journal.size();) {
    const size_t left = kBlock - at % kBlock;
    if (left < kHeader) {
      at += left;
      continue;
    }
    if (journal.find_first_not_of('\0', at) == absl::string_view::npos) break;
    if (journal.size() - at < kHeader) return ends(Journal::End::kCutShort);
    const absl::string_view header = journal.substr(at, kHeader);
    const size_t bytes = ByteAt(header, 4) + (size_t{ByteAt(header, 5)} << 8);
    const uint8_t type = ByteAt(header, 6);
    result.recycled = IsRecycled(type);
    if (type < kWholeRecord || type > kLastPart || bytes > left - kHeader) {
      return ends(Journal::End::kDamaged);
    }
    if (journal.size() - at - kHeader < bytes) return ends(Journal::End::kCutShort);
    uint32_t stored = 0;
    for (size_t i = 4; i-- > 0;) stored = stored << 8 | ByteAt(header, i);
    const bool begins = type == kWholeRecord || type == kFirstPart;
    // The checksum covers the type, which stands in front of the payload.
    if (stored != Masked(Crc32c(journal.substr(at + kHeader - 1, bytes + 1))) ||
        begins == inside) {
      return ends(Journal::End::kDamaged);
    }
    if (begins) record.clear();
    record.append(journal.data() + at + kHeader, bytes);
    at += kHeader + bytes;
    inside = type == kFirstPart || type == kMiddlePart;
    if (inside) continue;
    result.records.push_back(std::move(record));
    result.sound_bytes = at;
  }
  return ends(inside ? Journal::End::kCutShort : Journal::End::kWhole);
}

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
    return IsRecycled(static_cast<uint8_t>(journal[at + kHeader - 1]));
  });
}

}  // namespace modelstore::storage::rocks
