// Selection of tensors by sections, keys, prefixes and patterns (v1.TensorSelection).
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

// INVALID_ARGUMENT if a selection has more than kMaxSelectionEntries entries or
// kMaxSelectionBytes bytes. `further_entries` are counted too: other lists of the
// request, whose `further_bytes` count half.
absl::Status CheckSelectionSize(const v1::TensorSelection& selection,
                                int further_entries = 0, size_t further_bytes = 0);

// Returns the NOT_FOUND for `keys` (`section:key`, not empty) that are not in `where`,
// the name of a checkpoint. The message lists the first ten.
absl::Status NoSuchKeys(absl::string_view field, std::vector<std::string> keys,
                        absl::string_view where);

// Decides for each tensor of a checkpoint whether it is selected, and records which
// entries of the selection have matched. Used by one thread at a time.
//
//   auto selector = TensorSelector::Make(selection);
//   selector->CheckSections(read);
//   for each tensor of read: if (selector->Takes(tensor, name)) ...
//   selector->CheckMatches(read);
//
// A tensor is selected if its section is listed (or no section is), it matches a key,
// prefix or include pattern (or there are none), and it matches no exclude pattern.
class TensorSelector {
 public:
  // INVALID_ARGUMENT naming a pattern that does not compile.
  static absl::StatusOr<TensorSelector> Make(const v1::TensorSelection& selection);

  bool TakesSection(const std::string& section) const {
    return sections_.empty() || sections_.contains(section);
  }
  // `name` is `section:key` of the tensor.
  bool Takes(const storage::records::TensorRecord& tensor, const std::string& name);

  // Called after Takes() for every tensor of `read` and, in a comparison, of `other`.
  // NOT_FOUND if a key, prefix or include pattern matched no tensor; INVALID_ARGUMENT if
  // the excludes removed every included tensor. OK in both cases with allow_unmatched.
  absl::Status CheckMatches(const storage::Read& read,
                            const storage::Read* other = nullptr) const;
  // NOT_FOUND for a section of the selection that neither checkpoint has.
  absl::Status CheckSections(const storage::Read& read,
                             const storage::Read* other = nullptr) const;

 private:
  absl::flat_hash_set<std::string> sections_;
  // `section:key`, and whether a tensor had it.
  absl::flat_hash_map<std::string, bool> keys_;
  std::vector<std::string> prefixes_;  // of `section:key`
  std::vector<KeyPattern> include_;
  std::vector<KeyPattern> exclude_;
  std::vector<bool> hits_;         // whether each of include_ has matched
  std::vector<bool> prefix_hits_;  // whether each of prefixes_ has matched
  bool allow_unmatched_ = false;
  int64_t included_ = 0;  // tensors before the excludes
  int64_t taken_ = 0;     // tensors after them
};

}  // namespace modelstore::server
