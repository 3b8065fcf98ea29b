// Reads RocksDB's journals (WAL, MANIFEST) without RocksDB. Format: blocks of 32 KiB;
// each record is preceded by checksum (4 bytes), length (2, little-endian) and type (1).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace modelstore::storage::rocks {

// Offsets of a journal's records, from their lengths alone.
std::vector<size_t> JournalRecords(absl::string_view journal);

// The content of a journal up to the first record that cannot be read.
struct Journal {
  enum class End {
    kWhole,      // nothing, or zeros, after the last record
    kTruncated,  // the last record is incomplete, as after a crash
    kDamaged,
  };

  // Complete records, joined from their parts.
  std::vector<std::string> records;
  // End of the last complete record.
  size_t valid_bytes = 0;
  // Where reading stopped: after `valid_bytes` if some parts of a record are intact.
  size_t readable_bytes = 0;
  End end = End::kWhole;
  // HasRecycledRecord() of what follows `readable_bytes`.
  bool recycled = false;
};

Journal ReadJournal(absl::string_view journal);

// Whether RocksDB would read a record with a type of recycled journals. The engine never
// recycles a journal, so such a type is damage; RocksDB 9.10 loops on it forever.
bool HasRecycledRecord(absl::string_view journal);

// Whether no record starts at `at` or later, not even one with only its type damaged. A
// power loss may leave such bytes of an append that was not synced.
bool IsGarbage(absl::string_view journal, size_t at);

}  // namespace modelstore::storage::rocks
