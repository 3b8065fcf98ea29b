// A checkpoint under edit, in memory: the architecture, the values of sections, and a
// table of tensors with the source of their bytes. Edits change it one after another; the
// session stores the result.
//
//   auto checkpoint = WorkingCheckpoint::Of(read);
//   WorkingTensor* weight = checkpoint->Find("model", "fc.weight");
//   weight->source = CastSource(weight->source, weight->dtype, DType::kFloat16);
//   weight->dtype = DType::kFloat16;
//
// Edits do not record what became of a parameter: the report derives it from `origin` and
// `source` at the end (see report.h). So an edit that moves a tensor must keep the record
// and change its key, and one that replaces a tensor must make a new record without an
// origin.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"
#include "proto/contract/dtype.h"
#include "server/modify/tensor_source.h"
#include "storage/api/reads.h"

namespace modelstore::server::modify {

inline bool IsComplex(DType dtype) {
  return dtype >= DType::kComplex32 && dtype <= DType::kComplex128;
}

// A run of consecutive rows: old rows, or new ones.
struct RowRun {
  // First old row; -1 for new rows.
  int64_t first = 0;
  int64_t count = 0;

  bool is_new() const { return first < 0; }
};

// A parameter group of one of the optimizers.
struct OptimizerGroup {
  // See OptimizerIndex::position().
  int optimizer = 0;
  int group = 0;

  friend auto operator<=>(const OptimizerGroup&, const OptimizerGroup&) = default;
};
// The groups of one parameter: at most one of each optimizer, ascending by optimizer.
using OptimizerGroups = std::vector<OptimizerGroup>;

// One tensor of a checkpoint under edit.
struct WorkingTensor {
  std::string section;
  std::string key;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  v1::TensorRole role = v1::TENSOR_ROLE_UNSPECIFIED;
  bool requires_grad = false;
  // Tensors with the same number above 0 are tied: they have the same source, dtype and
  // shape. 0 if the tensor is not tied.
  int tied_group = 0;
  // Position in base().manifest() of the tensor that this one originates from; unset for
  // a new tensor. Kept when an edit changes its key or its bytes; a replacement is a new
  // tensor.
  std::optional<int> origin;
  // Never null. Its size is that of `dtype` and `shape`.
  SourcePtr source;
  // The groups that a new parameter joins. Empty until an edit or FollowOptimizers()
  // chooses them.
  OptimizerGroups optimizer_groups;
  // Set by resize_output: the current rows as runs of rows of the original tensor. Valid
  // while `source` is `of`, possibly below casts; another source makes it outdated.
  struct KeptRows {
    SourcePtr of;
    std::vector<RowRun> rows;
  };
  std::optional<KeptRows> kept_rows;
  // Index of the last edit that changed the bytes; -1 if none has.
  int changed_by = -1;
};

// Approximate memory in bytes of a section's decoded values.
int64_t DecodedBytes(const storage::records::SectionRecord& section);

// Used by one thread at a time. Movable.
class WorkingCheckpoint {
 public:
  // Makes a working copy of `base`, which it keeps open. Reads no tensor. DATA_LOSS if
  // the stored metadata cannot be read.
  static absl::StatusOr<WorkingCheckpoint> Of(std::shared_ptr<storage::Read> base);

  // The version that is modified.
  const std::shared_ptr<storage::Read>& base() const { return base_; }

  // Unset if the architecture is not known.
  std::optional<v1::Architecture>& architecture() { return architecture_; }
  const std::optional<v1::Architecture>& architecture() const { return architecture_; }

  // In state dict order. The first tensor of a tied group in this order is stored; the
  // others refer to it.
  const std::vector<WorkingTensor>& tensors() const { return tensors_; }
  // Elements may be changed in place, except section, key and tied_group.
  std::vector<WorkingTensor>& tensors() { return tensors_; }
  // The tensor with this key; null if there is none. Valid until tensors are added or
  // removed.
  WorkingTensor* Find(absl::string_view section, absl::string_view key);
  // The tensors of its tied group, including itself. `tensor` must be in the table.
  std::vector<WorkingTensor*> TiedTo(WorkingTensor& tensor);
  // Removes the tensor from its tied group. Returns the number of tensors that remain in
  // the group.
  size_t Untie(WorkingTensor& tensor);
  int NewTiedGroup() { return ++last_group_; }

  // Position in the base of the tensor that stores the bytes of the tensor at `origin`:
  // the same for all tensors that were tied to each other.
  int OwnerOf(int origin) const { return owners_[origin]; }
  // Whether the bytes are those of the origin. False for a new tensor.
  bool HasOriginalBytes(const WorkingTensor& tensor) const;
  // Whether the values are those of the origin, in the same type or cast to another.
  bool HasOriginalValues(const WorkingTensor& tensor) const;

  // Inserts tensors before the one at `position`. ALREADY_EXISTS naming the first one
  // whose key is taken; INVALID_ARGUMENT if a key is malformed or the checkpoint would
  // exceed kMaxTensors. Changes nothing on an error.
  absl::Status Insert(size_t position, std::vector<WorkingTensor> tensors);
  // Removes the tensors for which `gone` returns true and returns their number.
  // References to them in the values of their sections are removed too: an entry of a
  // dict is deleted, and an element of a list becomes None. On an error the checkpoint is
  // partly changed.
  absl::StatusOr<int> EraseIf(absl::FunctionRef<bool(const WorkingTensor&)> gone);
  // Gives the tensors of a section new keys; `new_key` returns the old key of a tensor
  // that keeps it. References in the values of the section follow. ALREADY_EXISTS naming
  // the first key that two tensors would have; INVALID_ARGUMENT for a malformed key or if
  // keys take more than kMaxManifestBytes. Changes nothing on an error.
  absl::Status Rename(absl::string_view section,
                      absl::FunctionRef<std::string(const WorkingTensor&)> new_key);

  // Ids of all sections: first those with values, then those that only have tensors.
  std::vector<std::string> SectionNames() const;
  bool HasSection(absl::string_view section) const;
  // The values and metadata of a section, which may be changed in place; null if the
  // section has none. Decodes the section at the first call. A section that is never
  // decoded is stored again byte for byte.
  absl::StatusOr<v1::Section*> Section(absl::string_view section);
  // Approximate memory in bytes that decoding the section takes; 0 if it is decoded.
  int64_t UndecodedBytes(absl::string_view section) const;
  // Removes a section and its tensors. Returns false if there is none.
  bool DropSection(absl::string_view section);
  // Gives the module paths in a section's `_metadata` new values, as Rename() does for
  // keys. An entry whose path becomes absent is removed. An entry that gets a new path
  // replaces an entry that keeps that path. ALREADY_EXISTS naming the first path that two
  // entries would get; INVALID_ARGUMENT for a path longer than a key may be. A string
  // that is too long to be a module's path is left unchanged. Changes nothing on an
  // error.
  absl::Status RenameMetadata(
      absl::string_view section,
      absl::FunctionRef<std::optional<std::string>(absl::string_view path)> new_path);
  // The section's `_metadata`, which maps module paths to dicts and may be changed in
  // place; null if the section has none.
  absl::StatusOr<v1::DictValue*> Metadata(absl::string_view section);

  // Upper bound in bytes of the memory of a hash table with one entry for each module
  // path above the keys of a section, if its keys are views.
  int64_t PathBytes(absl::string_view section) const;
  // Approximate memory in bytes of the table, the architecture and the decoded sections.
  int64_t MemoryBytes() const;

  // The values of a section, without its tensors.
  struct StoredSection {
    // As stored in the base.
    storage::records::SectionRecord record;
    // The current values; set once the section is decoded, and then stored instead of
    // `record`.
    std::optional<v1::Section> section;
  };
  const std::vector<StoredSection>& sections() const { return sections_; }

 private:
  explicit WorkingCheckpoint(std::shared_ptr<storage::Read> base)
      : base_(std::move(base)) {}
  // Makes the table from the base's manifest.
  absl::Status AddTensors();
  // Rebuilds `index_` and `groups_`. Called after every change of positions or keys.
  void Reindex();
  StoredSection* FindSection(absl::string_view section);
  // Replaces each reference to a tensor by the key that `new_key` returns, or removes it
  // if that is absent. A section without changed references stays as it is stored.
  absl::Status ChangeReferences(
      absl::string_view section,
      absl::FunctionRef<std::optional<std::string>(const std::string& key)> new_key);

  std::shared_ptr<storage::Read> base_;
  std::optional<v1::Architecture> architecture_;
  std::vector<WorkingTensor> tensors_;
  // Position in `tensors_`, by section and key.
  absl::flat_hash_map<std::pair<std::string, std::string>, size_t> index_;
  struct TiedGroup {
    // May include tensors that Untie() has removed: compare their `tied_group`.
    std::vector<size_t> positions;
    // Number of tensors in the group.
    size_t members = 0;
  };
  absl::flat_hash_map<int, TiedGroup> groups_;
  std::vector<StoredSection> sections_;
  // For each tensor of the base, the position of the tensor that stores its bytes. See
  // OwnerOf().
  std::vector<int> owners_;
  int last_group_ = 0;
};

}  // namespace modelstore::server::modify
