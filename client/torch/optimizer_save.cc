#include "client/torch/optimizer_save.h"

#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/element_type.h"
#include "client/torch/tensor_views.h"

namespace modelstore::torch_internal {

ParameterNames::ParameterNames(const std::vector<StateEntry>& entries) {
  for (const StateEntry& entry : entries) {
    // CheckStorable() refuses a tensor without storage.
    if (!entry.tensor.defined() || !entry.tensor.has_storage()) continue;
    by_tensor_[entry.tensor.unsafeGetTensorImpl()].push_back(entry.key);
    by_memory_[TensorIdentity(entry.tensor)].push_back(entry.key);
  }
}

const std::vector<std::string>& ParameterNames::FindAll(
    const torch::Tensor& parameter) const {
  static const std::vector<std::string> none;
  if (!parameter.defined() || !parameter.has_storage()) return none;
  const auto same = by_tensor_.find(parameter.unsafeGetTensorImpl());
  if (same != by_tensor_.end()) return same->second;
  const auto alias = by_memory_.find(TensorIdentity(parameter));
  return alias == by_memory_.end() ? none : alias->second;
}

std::string ParameterNames::Find(const torch::Tensor& parameter) const {
  const std::vector<std::string>& names = FindAll(parameter);
  return names.empty() ? "" : names.front();
}

std::string ParameterText(size_t group, size_t position, const torch::Tensor& parameter) {
  if (!parameter.defined()) {
    return absl::StrCat("parameter ", position, " of group ", group, " (undefined)");
  }
  return absl::StrCat("parameter ", position, " of group ", group, " (",
                      c10::toString(parameter.scalar_type()), " ",
                      ShapeText(parameter.sizes().vec()), ")");
}

namespace {

// Converts a field to a value and adds its tensors to the section.
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

// Reads one optimizer. Names all parameters first, then numbers them through the groups
// in order, as Python does. Used once.
class Reader {
 public:
  Reader(const torch::optim::Optimizer& optimizer, const OptimizerTable& table,
         const ParameterNames& names)
      : optimizer_(optimizer), table_(table), names_(names) {}

  absl::StatusOr<OptimizerSection> Run(bool nameless) {
    for (size_t g = 0; g < optimizer_.param_groups().size(); ++g) {
      if (absl::Status s = NameGroup(g); !s.ok()) return s;
    }
    if (!unknown_parameters_.empty() && !(nameless && owners_.empty()))
      return RefuseUnknownParameters();
    std::vector<Value> groups;
    for (size_t g = 0; g < optimizer_.param_groups().size(); ++g) {
      groups.push_back(ReadGroup(g));
    }
    section_.value = Value::Dict({{"state", Value::Dict(std::move(states_))},
                                  {"param_groups", Value::List(std::move(groups))}});
    section_.metadata = Value::Dict({{"class", table_.name}});
    return std::move(section_);
  }

 private:
  // Collects parameters without a name. Refuses two parameters with one name.
  absl::Status NameGroup(size_t g) {
    const std::vector<torch::Tensor>& params = optimizer_.param_groups()[g].params();
    for (size_t p = 0; p < params.size(); ++p) {
      const std::string name = names_.Find(params[p]);
      if (name.empty()) {
        if (!names_.empty())
          unknown_parameters_.push_back(ParameterText(g, p, params[p]));
        continue;
      }
      const auto [owner, first] =
          owners_.try_emplace(name, params[p].unsafeGetTensorImpl());
      if (first || owner->second == params[p].unsafeGetTensorImpl()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(ParameterText(g, p, params[p]), " is the memory of `", name,
                       "`, as an earlier parameter is: give "
                       "the optimizer the module's own tensors"));
    }
    return absl::OkStatus();
  }

  absl::Status RefuseUnknownParameters() const {
    constexpr size_t kMaxReported = 5;
    std::vector<std::string> told = unknown_parameters_;
    if (told.size() > kMaxReported) told.resize(kMaxReported);
    return absl::InvalidArgumentError(absl::StrCat(
        absl::StrJoin(told, ", "),
        unknown_parameters_.size() > kMaxReported
            ? absl::StrCat(" and ", unknown_parameters_.size() - kMaxReported, " more")
            : "",
        unknown_parameters_.size() > 1 ? " are" : " is",
        " neither in the module nor in extra_tensors: name each there, as "
        "{\"temperature\", tensor}, to save it and its state"));
  }

  Value ReadGroup(size_t g) {
    const auto& group = optimizer_.param_groups()[g];
    Value entry = Value::Dict();
    for (auto& [name, value] : table_.read_options(group.options())) {
      entry.Set(name, std::move(value));
    }
    // Python's optimizers require these options in the dict.
    for (const auto& [name, value] : table_.python_only) entry.Set(name, value);
    std::vector<Value> params, names;
    std::set<int64_t> listed;
    for (const torch::Tensor& parameter : group.params()) {
      const int64_t id = IdOf(parameter);
      if (!listed.insert(id).second) continue;
      params.emplace_back(id);
      if (!owners_.empty()) names.emplace_back(names_.Find(parameter));
    }
    const bool named = !names.empty();
    entry.Set("params", Value::List(std::move(params)));
    if (named) entry.Set("param_names", Value::List(std::move(names)));
    return entry;
  }

  // Returns the parameter's number. Reads its state the first time.
  int64_t IdOf(const torch::Tensor& parameter) {
    const auto next = static_cast<int64_t>(ids_.size());
    const auto [it, first] = ids_.try_emplace(StateKey(parameter), next);
    if (!first) return it->second;
    const auto state = optimizer_.state().find(StateKey(parameter));
    if (state == optimizer_.state().end()) return next;
    Value fields = Value::Dict();
    for (auto& [name, field] : table_.read_state(*state->second)) {
      fields.Set(name, FieldValue(absl::StrCat("state/", next, "/", name),
                                  std::move(field), section_));
    }
    states_.emplace_back(next, std::move(fields));
    return next;
  }

  const torch::optim::Optimizer& optimizer_;
  const OptimizerTable& table_;
  const ParameterNames& names_;
  std::map<std::string, const c10::TensorImpl*> owners_;  // used names to their tensors
  std::vector<std::string> unknown_parameters_;
  std::map<StateKeyType, int64_t> ids_;
  std::vector<std::pair<Value, Value>> states_;
  OptimizerSection section_;
};

}  // namespace

absl::StatusOr<OptimizerSection> ReadOptimizer(const torch::optim::Optimizer& optimizer,
                                               const ParameterNames& names,
                                               bool nameless) {
  absl::StatusOr<const OptimizerTable*> table = TableOf(optimizer);
  if (!table.ok()) return table.status();
  return Reader(optimizer, **table, names).Run(nameless);
}

}  // namespace modelstore::torch_internal
