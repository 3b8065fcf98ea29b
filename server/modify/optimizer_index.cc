#include "server/modify/optimizer_index.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/limits.h"
#include "server/core/convert.h"
#include "server/modify/optimizer_resolver.h"

namespace modelstore::server::modify {
namespace {

// Far beyond what an optimizer numbers, and small enough to count on from there.
constexpr int64_t kMaxId = int64_t{1} << 53;

absl::Status Malformed(absl::string_view what) {
  return absl::FailedPreconditionError(what);
}

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
  return section == "model" && role != v1::BUFFER &&
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
                                                  const Names& names) {
  OptimizerIndex index;
  const auto& manifest = checkpoint.base()->manifest();
  index.group_of_.assign(manifest.tensors_size(), -1);
  const storage::records::SectionRecord* record = nullptr;
  for (const auto& section : manifest.sections()) {
    if (section.name() == kOptimizer) record = &section;
  }
  v1::Value optimizer;
  if (record != nullptr) {
    auto section = SectionFromRecord(*record);
    if (!section.ok()) return section.status();
    optimizer = std::move(*section->mutable_value());
  }
  const auto* groups = ElementsOf(FindEntry(optimizer, "param_groups"));
  if (groups == nullptr) {
    if (names.empty()) return index;
    return RefuseNames("there is no section `optimizer` with `param_groups`");
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
  if (!tensor.origin.has_value()) return tensor.optimizer_group;
  const int group = group_of_[*tensor.origin];
  if (group < 0) return std::nullopt;
  return group;
}

NearGroups::NearGroups(const OptimizerIndex& index, const WorkingCheckpoint& checkpoint) {
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.section != "model") continue;
    const std::optional<int> group = index.GroupOf(tensor);
    if (!group.has_value()) continue;
    absl::string_view path = tensor.key;
    do {
      path = SplitModulePath(path).first;
      auto [known, fresh] = groups_.try_emplace(path, Groups{*group, std::nullopt});
      Groups& groups = known->second;
      if (fresh || groups.first == *group) continue;
      // The paths above have two groups already.
      if (groups.other.has_value()) break;
      groups.other = *group;
    } while (!path.empty());
  }
}

std::vector<int> NearGroups::Of(absl::string_view path) const {
  while (!path.empty()) {
    path = SplitModulePath(path).first;
    auto found = groups_.find(path);
    if (found == groups_.end()) continue;
    std::vector<int> groups = {found->second.first};
    if (found->second.other.has_value()) groups.push_back(*found->second.other);
    return groups;
  }
  return {};
}

}  // namespace modelstore::server::modify
