// What the engine itself knows of RocksDB's journals (WAL, MANIFEST): blocks of 32 KiB;
// a record has a checksum (4 bytes), a length (2, little-endian) and a type (1) in front.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace modelstore::storage::rocks {

// Where the records of a journal begin, by their lengths.
std::vector<size_t> JournalRecords(absl::string_view journal);

// What a journal holds, up to the first record that cannot be read.
struct Journal {
  enum class End {
    kWhole,     // nothing, or zeros, behind the last record
    kCutShort,  // the last record is not all there, as a crash leaves it
    kDamaged,
  };

  // Put together from their parts.
  std::vector<std::string> records;
  // Where the last of them ends.
  size_t sound_bytes = 0;
  // Where reading stopped: behind `sound_bytes` if parts of a record can be read.
  size_t readable_bytes = 0;
  End end = End::kWhole;
  // HasRecycledRecord() of what follows `readable_bytes`.
  bool recycled = false;
};

Journal ReadJournal(absl::string_view journal);

// Whether RocksDB would read a record whose type belongs to a recycled journal file. The
// engine recycles none; RocksDB 9.10 reads such a record for ever.
bool HasRecycledRecord(absl::string_view journal);

// Whether no record begins at `at` or later, not even one of which only the type is
// damaged. A power loss may leave such bytes of an append that was not synced.
bool IsGarbage(absl::string_view journal, size_t at);

}  // namespace modelstore::storage::rocks
