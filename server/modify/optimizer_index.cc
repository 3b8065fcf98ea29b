#include "server/modify/optimizer_index.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/limits.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/modify/optimizer_resolver.h"

namespace modelstore::server::modify {
namespace {

// Far above the numbers that optimizers assign. New parameters get numbers above the
// highest one, which must not overflow.
constexpr int64_t kMaxId = int64_t{1} << 53;

absl::Status Malformed(absl::string_view what) {
  return absl::FailedPreconditionError(what);
}

// Checks the layout of one group. `seen` holds the numbers of the groups before it.
absl::Status CheckGroup(int g, const v1::Value& group,
                        absl::flat_hash_set<int64_t>& seen) {
  const std::string at = absl::StrCat("param_groups[", g, "]");
  if (!group.has_dict_value()) return Malformed(absl::StrCat(at, " is no dict"));
  const auto* ids = ElementsOf(FindEntry(group, "params"));
  if (ids == nullptr) return Malformed(absl::StrCat(at, " has no list `params`"));
  for (const v1::Value& id : *ids) {
    if (!id.has_int_value() || id.int_value() < 0 || id.int_value() > kMaxId) {
      return Malformed(
          absl::StrCat(at, ".params holds what is no number of a parameter"));
    }
    if (!seen.insert(id.int_value()).second) {
      return Malformed(absl::StrCat(at, ".params holds ", id.int_value(), " again"));
    }
  }
  const v1::Value* names = FindEntry(group, "param_names");
  if (names == nullptr) return absl::OkStatus();
  const auto* list = ElementsOf(names);
  const bool fits = list != nullptr && list->size() == ids->size() &&
                    absl::c_all_of(*list, [](const v1::Value& name) {
                      return name.has_string_value();
                    });
  if (fits) return absl::OkStatus();
  return Malformed(absl::StrCat(at, ".param_names is no list of ", ids->size(),
                                " names, one for each of `params`"));
}

}  // namespace

bool IsOptimizerSection(absl::string_view section) {
  constexpr absl::string_view kOne = "optimizer", kOneOfSeveral = "optimizer.";
  return section == kOne || (absl::StartsWith(section, kOneOfSeveral) &&
                             section.size() > kOneOfSeveral.size());
}

v1::Value* FindEntry(v1::Value& dict, absl::string_view key) {
  if (!dict.has_dict_value()) return nullptr;
  for (auto& entry : *dict.mutable_dict_value()->mutable_entries()) {
    if (entry.key().has_string_value() && entry.key().string_value() == key) {
      return entry.mutable_value();
    }
  }
  return nullptr;
}

const v1::Value* FindEntry(const v1::Value& dict, absl::string_view key) {
  for (const auto& entry : dict.dict_value().entries()) {
    if (entry.key().has_string_value() && entry.key().string_value() == key) {
      return &entry.value();
    }
  }
  return nullptr;
}

const google::protobuf::RepeatedPtrField<v1::Value>* ElementsOf(const v1::Value* value) {
  if (value == nullptr) return nullptr;
  if (value->has_list_value()) return &value->list_value().values();
  return value->has_tuple_value() ? &value->tuple_value().values() : nullptr;
}

bool CanBeTrained(absl::string_view section, v1::TensorRole role, DType dtype) {
  return section == "model" && role != v1::TENSOR_ROLE_BUFFER &&
         (IsComplex(dtype) || IsFloatingPoint(dtype));
}

bool CanBeTrained(const storage::records::TensorRecord& record) {
  return CanBeTrained(record.section(), static_cast<v1::TensorRole>(record.role()),
                      static_cast<DType>(record.dtype()));
}

bool IsElementwise(absl::string_view field) {
  static constexpr std::array<absl::string_view, 12> kFields = {"momentum_buffer",
                                                                "exp_avg",
                                                                "exp_avg_sq",
                                                                "max_exp_avg_sq",
                                                                "square_avg",
                                                                "grad_avg",
                                                                "acc_delta",
                                                                "exp_inf",
                                                                "sum",
                                                                "prev",
                                                                "step_size",
                                                                "ax"};
  return absl::c_linear_search(kFields, field);
}

absl::Status CheckOptimizerLayout(const v1::Value& optimizer) {
  const v1::Value* state = FindEntry(optimizer, "state");
  if (state == nullptr || !state->has_dict_value()) {
    return Malformed("`state` is no dict");
  }
  const auto* groups = ElementsOf(FindEntry(optimizer, "param_groups"));
  if (groups == nullptr) return Malformed("`param_groups` is no list");
  absl::flat_hash_set<int64_t> seen;
  for (int g = 0; g < groups->size(); ++g) {
    if (auto s = CheckGroup(g, (*groups)[g], seen); !s.ok()) return s;
    if (static_cast<int64_t>(seen.size()) > kMaxTensors) {
      return Malformed(absl::StrCat("it holds more than ", kMaxTensors,
                                    " parameters, which is what a checkpoint may hold"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<OptimizerIndex> OptimizerIndex::Of(const WorkingCheckpoint& checkpoint,
                                                  absl::string_view section, int position,
                                                  const Names& names) {
  OptimizerIndex index;
  index.section_ = std::string(section);
  index.position_ = position;
  // Decodes the section as stored in the base: edits may have changed the working
  // checkpoint.
  v1::Value optimizer;
  const std::string name = FullCheckpointName(*checkpoint.base());
  for (const auto& record : checkpoint.base()->manifest().sections()) {
    if (record.name() != section) continue;
    auto decoded = SectionFromRecord(record, name);
    if (!decoded.ok()) return decoded.status();
    optimizer = std::move(*decoded->mutable_value());
  }
  const auto* groups = ElementsOf(FindEntry(optimizer, "param_groups"));
  if (groups == nullptr) {
    if (names.empty()) return index;
    return RefuseNames(section, "the section has no `param_groups`");
  }
  index.is_optimizer_ = true;
  index.group_count_ = groups->size();
  if (auto s = CheckOptimizerLayout(optimizer); !s.ok()) {
    index.malformed_ = true;
    index.why_ = std::string(s.message());
    return index;
  }
  if (auto s = OptimizerResolver(*checkpoint.base(), optimizer, index).Run(names);
      !s.ok()) {
    return s;
  }
  return index;
}

std::optional<int> OptimizerIndex::GroupOf(const WorkingTensor& tensor) const {
  if (tensor.origin.has_value()) {
    const auto group = group_of_.find(*tensor.origin);
    if (group != group_of_.end()) return group->second;
    return std::nullopt;
  }
  for (const OptimizerGroup& given : tensor.optimizer_groups) {
    if (given.optimizer == position_) return given.group;
  }
  return std::nullopt;
}

OptimizerGroups GroupsOf(const OptimizerIndexes& optimizers,
                         const WorkingTensor& tensor) {
  OptimizerGroups groups;
  for (const OptimizerIndex* index : optimizers) {
    const std::optional<int> group = index->GroupOf(tensor);
    if (group.has_value()) groups.push_back({index->position(), *group});
  }
  return groups;
}

NearGroups::NearGroups(const OptimizerIndexes& optimizers,
                       const WorkingCheckpoint& checkpoint) {
  // Position in `sets_`, by set.
  std::map<OptimizerGroups, int> numbers;
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.section != "model") continue;
    OptimizerGroups groups = GroupsOf(optimizers, tensor);
    if (groups.empty()) continue;
    const auto [set, added] =
        numbers.try_emplace(std::move(groups), static_cast<int>(sets_.size()));
    if (added) sets_.push_back(set->first);
    // Registers the set with all modules above the tensor, from the innermost to the
    // root.
    absl::string_view path = tensor.key;
    do {
      path = SplitModulePath(path).first;
      auto [known, fresh] = near_.try_emplace(path, Near{set->second, std::nullopt});
      Near& near = known->second;
      if (fresh || near.first == set->second) continue;
      // This path already has two sets, so those above it have two as well.
      if (near.other.has_value()) break;
      near.other = set->second;
    } while (!path.empty());
  }
}

std::vector<OptimizerGroups> NearGroups::Of(absl::string_view path) const {
  while (!path.empty()) {
    path = SplitModulePath(path).first;
    auto found = near_.find(path);
    if (found == near_.end()) continue;
    std::vector<OptimizerGroups> sets = {sets_[found->second.first]};
    if (found->second.other.has_value()) sets.push_back(sets_[*found->second.other]);
    return sets;
  }
  return {};
}

}  // namespace modelstore::server::modify
