// Makes an openable catalog from a damaged one, after the operator has accepted the loss.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/rocksdb/folder.h"
#include "storage/rocksdb/high_water.h"

namespace modelstore::storage::rocks {

// OK if `content` starts with the bytes that HIGH_WATER records of the journal `name`, or
// if it records nothing of it. Otherwise DATA_LOSS with the difference.
absl::Status CheckJournal(const HighWater& mark, absl::string_view name,
                          absl::string_view content);

struct Salvaged {
  // Describes what was done, for the log.
  std::string summary;
  // The MANIFEST was unusable: RebuildCatalog() made the catalog.
  bool rebuilt = false;
};

// Makes the new catalog in catalog.new/:
//   - if the MANIFEST is intact, from the same tables and from the WALs up to the first
//     damage. This is the state before the damaged write, unless a table holds later
//     writes, which Salvaged::summary reports;
//   - otherwise from all entries of all tables and WALs, the newest of each key.
// Then moves the old catalog to quarantine unchanged, moves the new one into its place,
// and leaves the loss open (Quarantine). A crash at any point leaves one of the two
// catalogs in place. The catalog must be closed. DATA_LOSS, with nothing changed, if
// required tables are damaged too. Needs about 150 bytes of memory per key.
absl::StatusOr<Salvaged> SalvageCatalog(Folder& folder, const HighWater& mark,
                                        absl::string_view why);

}  // namespace modelstore::storage::rocks
