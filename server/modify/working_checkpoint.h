// A checkpoint under edit, in memory: the architecture, the values of sections,
// and a table of tensors that say where their bytes come from. Edits change it
// one after the other; the session stores what it has become.
//
//   auto checkpoint = WorkingCheckpoint::Of(read);
//   WorkingTensor* weight = checkpoint->Find("model", "fc.weight");
//   weight->source = CastSource(weight->source, weight->dtype, DType::kFloat16);
//   weight->dtype = DType::kFloat16;
//
// What became of a parameter is not written down by the edits: it is read off
// `origin` and `source` at the end (see report.h). So an edit that moves a tensor
// keeps the record and changes its key; one that puts another in its place makes
// a new record, whose origin is unset.
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

// Rows that follow each other: of the tensor that was, or new ones.
struct RowRun {
  // -1 for new ones.
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
// Those of one parameter: at most one of each optimizer, in their order.
using OptimizerGroups = std::vector<OptimizerGroup>;

struct WorkingTensor {
  std::string section;
  std::string key;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  v1::TensorRole role = v1::TENSOR_ROLE_UNSPECIFIED;
  bool requires_grad = false;
  // Tensors of one number above 0 are tied: they have one source, dtype and shape.
  int tied_group = 0;
  // Position in base().manifest() of the tensor that this one was; unset for one
  // that is new. It follows renames and changes of its bytes, not a replacement.
  std::optional<int> origin;
  // Never null; as long as dtype and shape say.
  SourcePtr source;
  // Of a new parameter the groups that it joins, once they are settled.
  OptimizerGroups optimizer_groups;
  // Of one that resize_output changed: the rows of the tensor that it was, as they
  // lie now. It holds as long as `of` is the source, whatever casts lie over it.
  struct KeptRows {
    SourcePtr of;
    std::vector<RowRun> rows;
  };
  std::optional<KeptRows> kept_rows;
  // Index of the last edit that gave it other bytes; -1: none.
  int changed_by = -1;
};

// Approximate memory of a section's decoded values.
int64_t DecodedBytes(const storage::records::SectionRecord& section);

// Used by one thread at a time. Movable.
class WorkingCheckpoint {
 public:
  // DATA_LOSS if what is stored cannot be read.
  static absl::StatusOr<WorkingCheckpoint> Of(std::shared_ptr<storage::Read> base);

  // The version that is being modified.
  const std::shared_ptr<storage::Read>& base() const { return base_; }

  // Unset where it is not known.
  std::optional<v1::Architecture>& architecture() { return architecture_; }
  const std::optional<v1::Architecture>& architecture() const { return architecture_; }

  // In the order of the state dict. The first of a tied group in this order is the
  // one that the others will be tied to.
  const std::vector<WorkingTensor>& tensors() const { return tensors_; }
  // Elements may be changed in place, except section, key and tied_group.
  std::vector<WorkingTensor>& tensors() { return tensors_; }
  // Null if there is none. Valid until the table changes.
  WorkingTensor* Find(absl::string_view section, absl::string_view key);
  // Those of its tied group, itself among them. `tensor` is one of the table.
  std::vector<WorkingTensor*> TiedTo(WorkingTensor& tensor);
  // Takes it out of its tied group. Returns how many others this still has.
  size_t Untie(WorkingTensor& tensor);
  int NewTiedGroup() { return ++last_group_; }

  // Position in the base of the tensor that stores the bytes of the one at `origin`:
  // tied tensors have the same.
  int OwnerOf(int origin) const { return owners_[origin]; }
  // The bytes are those that the tensor of its origin has.
  bool HasOriginalBytes(const WorkingTensor& tensor) const;
  // ... or the same elements in another type.
  bool HasOriginalValues(const WorkingTensor& tensor) const;

  // Puts tensors before the one that is at `position` now. ALREADY_EXISTS naming
  // the first one whose name is taken, INVALID_ARGUMENT if there would be more than a
  // checkpoint may hold; then nothing has changed.
  absl::Status Insert(size_t position, std::vector<WorkingTensor> tensors);
  // Returns how many went. What refers to them in the values of their sections
  // goes too: an entry of a dict; an element of a list becomes None.
  absl::StatusOr<int> EraseIf(absl::FunctionRef<bool(const WorkingTensor&)> gone);
  // Gives the tensors of a section new keys; `new_key` returns the old one for
  // those that stay. Values of the section that name them follow. ALREADY_EXISTS
  // naming the first key that two would have; INVALID_ARGUMENT for a malformed
  // one; in both cases nothing has changed.
  absl::Status Rename(absl::string_view section,
                      absl::FunctionRef<std::string(const WorkingTensor&)> new_key);

  // Ids in their order, also those that hold no tensor.
  std::vector<std::string> SectionNames() const;
  bool HasSection(absl::string_view section) const;
  // Its values and metadata, to be changed in place; null if there is no such
  // section. One that nobody asks for is stored as it was, byte for byte.
  absl::StatusOr<v1::Section*> Section(absl::string_view section);
  // Approximate memory that decoding the section takes; 0 once Section() has done so.
  int64_t UndecodedBytes(absl::string_view section) const;
  // With its tensors. False if there is none.
  bool DropSection(absl::string_view section);
  // Gives the modules of a state dict's `_metadata` new paths, as Rename() gives
  // keys. A path for which nothing is returned is dropped. An entry that gets another
  // path replaces one that is there and keeps it. ALREADY_EXISTS naming the first path
  // that two would get; INVALID_ARGUMENT for one that would be longer than a key may be.
  // A key that is longer already is no module's path, and stays.
  absl::Status RenameMetadata(
      absl::string_view section,
      absl::FunctionRef<std::optional<std::string>(absl::string_view path)> new_path);
  // The modules' paths in `_metadata` of section `model`, with their dicts, to be
  // changed in place; null where the section has none.
  absl::StatusOr<v1::DictValue*> Metadata(absl::string_view section);

  // Upper bound of the memory of a hash table with one entry for each module path above
  // the keys of a section. Its keys are views.
  int64_t PathBytes(absl::string_view section) const;
  // What the table and the architecture take in memory, about.
  int64_t MemoryBytes() const;

  // A section apart from its tensors.
  struct StoredSection {
    // As it was stored.
    storage::records::SectionRecord record;
    // Set once it has been asked for: what it is now.
    std::optional<v1::Section> section;
  };
  const std::vector<StoredSection>& sections() const { return sections_; }

 private:
  explicit WorkingCheckpoint(std::shared_ptr<storage::Read> base)
      : base_(std::move(base)) {}
  absl::Status AddTensors();
  void Reindex();
  StoredSection* FindSection(absl::string_view section);
  // Calls `change` with each value of the section that names a tensor; a section
  // of which nothing changes stays as it is stored.
  absl::Status ChangeReferences(
      absl::string_view section,
      absl::FunctionRef<std::optional<std::string>(const std::string& key)> new_key);

  std::shared_ptr<storage::Read> base_;
  std::optional<v1::Architecture> architecture_;
  std::vector<WorkingTensor> tensors_;
  // By section and key.
  absl::flat_hash_map<std::pair<std::string, std::string>, size_t> index_;
  struct TiedGroup {
    // Also of those that have left it.
    std::vector<size_t> positions;
    size_t members = 0;
  };
  absl::flat_hash_map<int, TiedGroup> groups_;
  std::vector<StoredSection> sections_;
  // Position of the tensor that has the pieces, for each of the base.
  std::vector<int> owners_;
  int last_group_ = 0;
};

}  // namespace modelstore::server::modify
