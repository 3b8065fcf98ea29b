// Which tensors of a checkpoint a request speaks of: sections, keys, prefixes, patterns.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/v1/resources.pb.h"
#include "server/core/pattern.h"
#include "storage/api/reads.h"

namespace modelstore::server {

inline constexpr int kMaxSelectionEntries = 4096;
inline constexpr size_t kMaxSelectionBytes = 256 << 10;

// INVALID_ARGUMENT for a selection that is longer than any needs to be, together
// with what the request lists beside it.
absl::Status CheckSelectionSize(const v1::TensorSelection& selection,
                                int further_entries = 0, size_t further_bytes = 0);

// NOT_FOUND for keys (`section:key`) that are not in `where`, which names a checkpoint.
// Names the first of many.
absl::Status NoSuchKeys(absl::string_view field, std::vector<std::string> keys,
                        absl::string_view where);

// Used by one thread at a time: it remembers which of the names it has met.
class TensorSelector {
 public:
  // INVALID_ARGUMENT naming the pattern that does not compile.
  static absl::StatusOr<TensorSelector> Make(const v1::TensorSelection& selection);

  bool TakesSection(const std::string& section) const {
    return sections_.empty() || sections_.contains(section);
  }
  // `name` is the tensor's `section:key`.
  bool Takes(const storage::records::TensorRecord& tensor, const std::string& name);

  // After Takes() was asked for every tensor of `read`, and of `other` if there is one:
  // NOT_FOUND for an include that matched none, INVALID_ARGUMENT if the excludes left
  // none. OK in either case if the selection allows it.
  absl::Status CheckMatches(const storage::Read& read,
                            const storage::Read* other = nullptr) const;
  // NOT_FOUND for a section that was named and that neither checkpoint has.
  absl::Status CheckSections(const storage::Read& read,
                             const storage::Read* other = nullptr) const;

 private:
  absl::flat_hash_set<std::string> sections_;
  // Whether each was met, by `section:key`.
  absl::flat_hash_map<std::string, bool> keys_;
  std::vector<std::string> prefixes_;
  std::vector<KeyPattern> include_;
  std::vector<KeyPattern> exclude_;
  std::vector<bool> hits_;
  std::vector<bool> prefix_hits_;
  bool allow_unmatched_ = false;
  int64_t included_ = 0;
  int64_t taken_ = 0;
};

}  // namespace modelstore::server
