#include "storage/rocksdb/journal_format.h"

#include <array>
#include <cstdint>

namespace modelstore::storage::rocks {
namespace {

constexpr size_t kBlock = 32768;
constexpr size_t kHeader = 7;
// Record types of recycled journals: full, first, middle and last part.
constexpr uint8_t kFirstRecycledType = 5;
constexpr uint8_t kLastRecycledType = 8;
// Timestamp sizes, since RocksDB 8.2.
constexpr uint8_t kRecycledTimestampType = 11;

enum Part : uint8_t { kWholeRecord = 1, kFirstPart = 2, kMiddlePart = 3, kLastPart = 4 };

bool IsRecycled(uint8_t type) {
  return (type >= kFirstRecycledType && type <= kLastRecycledType) ||
         type == kRecycledTimestampType;
}

uint8_t ByteAt(absl::string_view bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]);
}

// CRC-32C table: Castagnoli's polynomial, bit-reversed.
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

// RocksDB stores checksums rotated by 15 bits plus a constant.
uint32_t Masked(uint32_t crc) { return (crc >> 15 | crc << 17) + 0xa282ead8u; }

struct Header {
  // `record` holds at least the header.
  explicit Header(absl::string_view record)
      : bytes(ByteAt(record, 4) + (size_t{ByteAt(record, 5)} << 8)),
        type(ByteAt(record, 6)) {
    for (size_t i = 4; i-- > 0;) checksum = checksum << 8 | ByteAt(record, i);
  }

  // Whether the record is complete and its checksum, which covers the type, matches.
  bool IsConsistent(absl::string_view record) const {
    return record.size() - kHeader >= bytes &&
           checksum == Masked(Crc32c(record.substr(kHeader - 1, bytes + 1)));
  }

  uint32_t checksum = 0;
  size_t bytes = 0;
  uint8_t type = 0;
};

// Whether RocksDB reads a record of a recycled type when it continues at `at`. After an
// unreadable record it continues with the next block.
bool ContainsRecycledRecord(absl::string_view journal, size_t at) {
  while (at < journal.size()) {
    const size_t left = kBlock - at % kBlock;
    const absl::string_view record = journal.substr(at, left);
    if (record.size() < kHeader) {
      at += left;
      continue;
    }
    const Header header(record);
    if (IsRecycled(header.type)) return true;
    at += header.IsConsistent(record) ? kHeader + header.bytes : left;
  }
  return false;
}

}  // namespace

Journal ReadJournal(absl::string_view journal) {
  Journal result;
  std::string record;
  bool inside = false;  // a record whose last part is missing so far
  size_t at = 0;
  const auto ends = [&](Journal::End end) {
    result.end = end;
    result.readable_bytes = at;
    result.recycled = end != Journal::End::kWhole && ContainsRecycledRecord(journal, at);
    return result;
  };
  while (at < journal.size()) {
    const size_t left = kBlock - at % kBlock;
    if (left < kHeader) {
      at += left;
      continue;
    }
    // Zeros up to the end: preallocated space.
    if (journal.find_first_not_of('\0', at) == absl::string_view::npos) break;
    if (journal.size() - at < kHeader) return ends(Journal::End::kTruncated);
    const absl::string_view part = journal.substr(at, left);
    const Header header(part);
    if (header.type < kWholeRecord || header.type > kLastPart ||
        header.bytes > left - kHeader) {
      return ends(Journal::End::kDamaged);
    }
    if (part.size() - kHeader < header.bytes) return ends(Journal::End::kTruncated);
    const bool begins = header.type == kWholeRecord || header.type == kFirstPart;
    if (!header.IsConsistent(part) || begins == inside)
      return ends(Journal::End::kDamaged);
    if (begins) record.clear();
    record.append(part.data() + kHeader, header.bytes);
    at += kHeader + header.bytes;
    inside = header.type == kFirstPart || header.type == kMiddlePart;
    if (inside) continue;
    result.records.push_back(std::move(record));
    result.valid_bytes = at;
  }
  return ends(inside ? Journal::End::kTruncated : Journal::End::kWhole);
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
  return ContainsRecycledRecord(journal, 0);
}

bool IsGarbage(absl::string_view journal, size_t at) {
  while (at < journal.size()) {
    const size_t left = kBlock - at % kBlock;
    const absl::string_view rest = journal.substr(at, left);
    if (rest.size() < kHeader || rest.size() - kHeader < Header(rest).bytes) {
      at += left;
      continue;
    }
    const Header header(rest);
    std::string record(rest.substr(0, kHeader + header.bytes));
    for (uint8_t type = kWholeRecord; type <= kLastPart; ++type) {
      record[kHeader - 1] = static_cast<char>(type);
      if (header.IsConsistent(record)) return false;
    }
    at += record.size();
  }
  return true;
}

}  // namespace modelstore::storage::rocks
