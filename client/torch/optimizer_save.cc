#include "client/torch/optimizer_save.h"

#include "absl/strings/str_cat.h"
#include "client/torch/tensor_views.h"

namespace modelstore::torch_internal {

ParameterNames::ParameterNames(const std::vector<StateEntry>& entries) {
  for (const StateEntry& entry : entries) {
    // A tensor without storage is refused elsewhere, by name.
    if (!entry.tensor.defined() || !entry.tensor.has_storage()) continue;
    names_.emplace(TensorIdentity(entry.tensor), entry.key);
  }
}

std::string ParameterNames::Find(const torch::Tensor& parameter) const {
  if (!parameter.defined() || !parameter.has_storage()) return "";
  const auto it = names_.find(TensorIdentity(parameter));
  return it == names_.end() ? "" : it->second;
}

std::vector<std::string> ParameterNames::FindAll(
    const std::vector<torch::Tensor>& parameters) const {
  std::vector<std::string> names;
  for (const torch::Tensor& parameter : parameters) {
    std::string name = Find(parameter);
    if (name.empty()) return {};
    names.push_back(std::move(name));
  }
  return names;
}

namespace {

// The field as a value; its tensors go to the section.
Value FieldValue(const std::string& key, StateField field, OptimizerSection& section) {
  if (const auto* number = std::get_if<Value>(&field)) return *number;
  const auto add = [&section](const std::string& name, torch::Tensor tensor) {
    section.tensors.emplace_back(name, std::move(tensor));
    return Value::Tensor(name);
  };
  if (auto* tensor = std::get_if<torch::Tensor>(&field)) return add(key, *tensor);
  std::vector<Value> list;
  for (torch::Tensor& tensor : std::get<std::vector<torch::Tensor>>(field)) {
    list.push_back(add(absl::StrCat(key, "/", list.size()), std::move(tensor)));
  }
  return Value::List(std::move(list));
}

}  // namespace

absl::StatusOr<OptimizerSection> ReadOptimizer(const torch::optim::Optimizer& optimizer,
                                               const ParameterNames& names) {
  absl::StatusOr<const OptimizerTable*> table = TableOf(optimizer);
  if (!table.ok()) return table.status();
  OptimizerSection section;
  std::vector<std::pair<Value, Value>> states;
  std::vector<Value> groups;
  int64_t index = 0;
  for (const auto& group : optimizer.param_groups()) {
    Value entry = Value::Dict();
    for (auto& [name, value] : (*table)->read_options(group.options())) {
      entry.Set(name, std::move(value));
    }
    for (const auto& [name, value] : (*table)->python_only) entry.Set(name, value);
    std::vector<Value> params;
    for (const torch::Tensor& parameter : group.params()) {
      const auto state = optimizer.state().find(StateKey(parameter));
      if (state != optimizer.state().end()) {
        Value fields = Value::Dict();
        for (auto& [name, field] : (*table)->read_state(*state->second)) {
          fields.Set(name, FieldValue(absl::StrCat("state/", index, "/", name),
                                      std::move(field), section));
        }
        states.emplace_back(index, std::move(fields));
      }
      params.emplace_back(index++);
    }
    entry.Set("params", Value::List(std::move(params)));
    if (std::vector<std::string> found = names.FindAll(group.params()); !found.empty()) {
      entry.Set("param_names", Value::List({found.begin(), found.end()}));
    }
    groups.push_back(std::move(entry));
  }
  section.value = Value::Dict({{"state", Value::Dict(std::move(states))},
                               {"param_groups", Value::List(std::move(groups))}});
  return section;
}

}  // namespace modelstore::torch_internal
