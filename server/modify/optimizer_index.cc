#include "server/modify/optimizer_index.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture.h"
#include "proto/contract/names.h"
#include "server/convert.h"

namespace modelstore::server::modify {

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

namespace {

// Positions of the parameters of `model` in the base, those that are tied together;
// by key of any of them, and in order.
struct ModelParameters {
  explicit ModelParameters(const storage::Read& base) {
    const auto& manifest = base.manifest();
    absl::flat_hash_map<std::string, size_t> owners;
    for (int t = 0; t < manifest.tensors_size(); ++t) {
      const auto& record = manifest.tensors(t);
      if (record.section() != "model" || record.role() == v1::BUFFER) continue;
      auto owner = owners.find(record.tied_to());
      const size_t place = owner == owners.end() ? in_order.size() : owner->second;
      if (owner == owners.end()) {
        owners.emplace(TensorNameOf("model", record.key()), place);
        in_order.emplace_back();
        trained.push_back(record.requires_grad());
      }
      in_order[place].push_back(t);
      by_key.emplace(record.key(), place);
    }
  }
  std::vector<std::vector<int>> in_order;
  std::vector<bool> trained;
  absl::flat_hash_map<std::string, size_t> by_key;
};

bool HasState(const v1::Value& state, int64_t id) {
  for (const auto& entry : state.dict_value().entries()) {
    if (entry.key().has_int_value() && entry.key().int_value() == id) {
      return !entry.value().dict_value().entries().empty();
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<OptimizerIndex> OptimizerIndex::Of(const WorkingCheckpoint& checkpoint) {
  OptimizerIndex index;
  const auto& manifest = checkpoint.base()->manifest();
  index.group_of_.assign(manifest.tensors_size(), -1);
  const storage::records::SectionRecord* record = nullptr;
  for (const auto& section : manifest.sections()) {
    if (section.name() == kOptimizer) record = &section;
  }
  if (record == nullptr) return index;
  auto section = SectionFromRecord(*record);
  if (!section.ok()) return section.status();
  const auto* groups = ElementsOf(FindEntry(section->value(), "param_groups"));
  const v1::Value* state = FindEntry(section->value(), "state");
  if (groups == nullptr || state == nullptr) return index;
  index.group_count_ = groups->size();
  for (int g = 0; g < groups->size(); ++g) {
    const auto* ids = ElementsOf(FindEntry((*groups)[g], "params"));
    if (ids == nullptr) continue;
    for (const v1::Value& id : *ids) {
      if (!id.has_int_value()) index.resolved_ = false;
      index.parameters_.push_back(
          {g, id.int_value(), {}, HasState(*state, id.int_value())});
    }
  }
  index.Resolve(*FindEntry(section->value(), "param_groups"), checkpoint);
  return index;
}

void OptimizerIndex::Resolve(const v1::Value& groups,
                             const WorkingCheckpoint& checkpoint) {
  const ModelParameters model(*checkpoint.base());
  std::vector<size_t> places;
  bool named = true;
  for (const v1::Value& group : *ElementsOf(&groups)) {
    const auto* ids = ElementsOf(FindEntry(group, "params"));
    const auto* names = ElementsOf(FindEntry(group, "param_names"));
    if (ids == nullptr || ids->empty()) continue;
    if (names == nullptr || names->size() != ids->size()) named = false;
    for (int i = 0; named && i < names->size(); ++i) {
      auto found = model.by_key.find((*names)[i].string_value());
      if (found == model.by_key.end()) named = false;
      else places.push_back(found->second);
    }
  }
  if (!named) {
    places.clear();
    const bool all = parameters_.size() == model.in_order.size();
    for (size_t p = 0; p < model.in_order.size(); ++p) {
      if (all || model.trained[p]) places.push_back(p);
    }
    if (places.size() != parameters_.size()) resolved_ = false;
  }
  if (!resolved_) return;
  for (size_t p = 0; p < parameters_.size(); ++p) {
    parameters_[p].origins = model.in_order[places[p]];
    for (const int t : parameters_[p].origins) group_of_[t] = parameters_[p].group;
  }
}

std::optional<int> OptimizerIndex::GroupOf(const WorkingTensor& tensor) const {
  if (!tensor.origin.has_value()) return tensor.optimizer_group;
  const int group = group_of_[*tensor.origin];
  if (group < 0) return std::nullopt;
  return group;
}

std::vector<int> OptimizerIndex::GroupsNear(absl::string_view path,
                                            const WorkingCheckpoint& checkpoint) const {
  while (!path.empty()) {
    path = SplitModulePath(path).first;
    const std::string prefix = path.empty() ? "" : absl::StrCat(path, ".");
    std::vector<int> groups;
    for (const WorkingTensor& tensor : checkpoint.tensors()) {
      if (tensor.section != "model" || !absl::StartsWith(tensor.key, prefix)) continue;
      const std::optional<int> group = GroupOf(tensor);
      if (!group.has_value()) continue;
      if (std::find(groups.begin(), groups.end(), *group) == groups.end()) {
        groups.push_back(*group);
      }
    }
    if (!groups.empty()) return groups;
  }
  return {};
}

}  // namespace modelstore::server::modify
