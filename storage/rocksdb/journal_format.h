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
  End end = End::kWhole;
  // From `sound_bytes` on: HasRecycledRecord().
  bool recycled = false;
};

Journal ReadJournal(absl::string_view journal);

// Whether RocksDB would come to a record that says that it belongs to a journal whose
// file was used before. None of ours does; RocksDB 9.10 reads such a record for ever.
bool HasRecycledRecord(absl::string_view journal);

// Whether no record begins at `at` or behind it, not even one whose type is damaged: so
// looks what a power loss leaves of an append that was not synced.
bool IsGarbage(absl::string_view journal, size_t at);

}  // namespace modelstore::storage::rocks
