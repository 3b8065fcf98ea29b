// Makes a catalog that opens out of one that does not, once its operator has accepted
// the loss.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/high_water.h"

namespace modelstore::storage::rocks {

// Whether `content` begins with the bytes that HIGH_WATER notes of the journal `name`.
// OK as well if it notes nothing of it; otherwise the message says what is wrong.
absl::Status CheckJournal(const HighWater& mark, absl::string_view name,
                          absl::string_view content);

struct Salvaged {
  // Says what was done.
  std::string said;
  // Whether it was made without a MANIFEST, by RebuildCatalog().
  bool rebuilt = false;
};

// Makes the new catalog beside the old one:
//   - if the MANIFEST is sound, of the same tables, and of the WALs up to the first
//     damage: the state before that write, unless a table holds later ones, which
//     Salvaged::said reports;
//   - otherwise of all entries of all tables and WALs, the newest of each key.
// Then moves the old one to quarantine, as it was found, and the new one into its place,
// and leaves the loss open (Quarantine). The catalog must be closed. DATA_LOSS, with
// everything as it was, if tables that are needed are damaged, too. Takes about 150 bytes
// of memory a key.
absl::StatusOr<Salvaged> SalvageCatalog(Folder& folder, const HighWater& mark,
                                        absl::string_view why);

}  // namespace modelstore::storage::rocks
