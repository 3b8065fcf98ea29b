#include "client/torch/load_optimizer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/element_type.h"
#include "client/torch/guard.h"

namespace modelstore::torch_internal {
namespace {

absl::Status Refuse(absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("the stored optimizer state does not fit: ", why));
}

const std::vector<Value>* ListOf(const Value* value) {
  const auto* sequence =
      value ? std::get_if<Value::Sequence>(&value->variant()) : nullptr;
  return sequence ? &sequence->values : nullptr;
}

bool IsNumber(const Value& value) { return NumberOf(value).has_value(); }

// A string as it is, anything else as Python prints it.
std::string TextOf(const Value& value) {
  return value.AsString().value_or(value.ToString());
}

bool IsNameOrNone(const Value& value) {
  return value.IsNull() || std::holds_alternative<std::string>(value.variant());
}

bool SameKind(const Value& stored, const Value& ours) {
  if (IsNameOrNone(ours)) return IsNameOrNone(stored);
  if (const auto* wanted = ListOf(&ours)) {
    const auto* values = ListOf(&stored);
    return values && values->size() == wanted->size() &&
           std::all_of(values->begin(), values->end(), IsNumber);
  }
  const std::optional<double> number = NumberOf(stored);
  if (!ours.AsInt()) return number.has_value();
  // LibTorch counts these: a fraction would be cut off.
  return number && std::trunc(*number) == *number && std::abs(*number) < 0x1p53;
}

class Planner {
 public:
  Planner(torch::optim::Optimizer& optimizer, const Value& stored, const PlanIndex& plan,
          const ParameterNames& names, const KeyRenames& renames, LoadReport& report)
      : optimizer_(optimizer),
        stored_(stored),
        plan_(plan),
        names_(names),
        renames_(renames),
        report_(report) {}

  absl::StatusOr<OptimizerLoad> Run() {
    absl::StatusOr<const OptimizerTable*> table = TableOf(optimizer_);
    if (!table.ok()) return table.status();
    load_.table = *table;
    const std::vector<Value>* groups = ListOf(stored_.Find("param_groups"));
    if (groups == nullptr || stored_.Find("state") == nullptr) {
      return Refuse("it is no optimizer's state_dict");
    }
    if (const auto* states =
            std::get_if<Value::DictEntries>(&stored_.Find("state")->variant())) {
      for (const auto& [id, fields] : states->entries) states_[id.ToString()] = &fields;
    }
    if (groups->size() != optimizer_.param_groups().size()) {
      return Refuse(absl::StrCat("it has ", groups->size(), " parameter group(s), the ",
                                 "optimizer has ", optimizer_.param_groups().size()));
    }
    for (size_t g = 0; g < groups->size(); ++g) {
      absl::Status status = PlanGroup(g, (*groups)[g]);
      if (!status.ok()) return status;
    }
    // Python keeps them under their number; here a state needs a parameter.
    for (const auto& [id, fields] : states_) {
      if (planned_.count(id) == 0) {
        report_.skipped.push_back(absl::StrCat("optimizer:state/", id));
      }
    }
    return std::move(load_);
  }

 private:
  absl::Status PlanGroup(size_t g, const Value& group) {
    if (absl::Status status = CheckOptions(g, group); !status.ok()) return status;
    const std::vector<torch::Tensor>& ours = optimizer_.param_groups()[g].params();
    absl::StatusOr<std::vector<Value>> ids = MatchParameters(g, group, ours);
    if (!ids.ok()) return ids.status();
    if (load_.table->of_group && *ids != *ListOf(group.Find("params"))) {
      return Refuse(absl::StrCat("the state of ", load_.table->name, " is of [",
                                 absl::StrJoin(NamesIn(group), ", "),
                                 "] in this order, the optimizer holds [",
                                 absl::StrJoin(names_.FindAll(ours), ", "), "]"));
    }
    flat_size_ = 0;
    for (const torch::Tensor& parameter : ours) flat_size_ += parameter.numel();
    for (size_t p = 0; p < ours.size(); ++p) {
      absl::Status status = PlanState(group, (*ids)[p], ours[p]);
      if (!status.ok()) return status;
    }
    load_.groups.push_back(&group);
    return absl::OkStatus();
  }

  absl::Status CheckOptions(size_t g, const Value& group) {
    std::set<std::string> known = {"params", "param_names"};
    for (const auto& [name, ours] :
         load_.table->read_options(optimizer_.param_groups()[g].options())) {
      known.insert(name);
      const Value* value = group.Find(name);
      if (value == nullptr || !SameKind(*value, ours)) {
        return Refuse(absl::StrCat("group ", g, " has no `", name, "` as ",
                                   load_.table->name, " needs it"));
      }
    }
    for (const auto& [name, only] : load_.table->python_only) {
      known.insert(name);
      const Value* value = group.Find(name);
      const auto& any = load_.table->indifferent;
      if (value == nullptr || *value == only ||
          std::find(any.begin(), any.end(), name) != any.end()) {
        continue;
      }
      return absl::UnimplementedError(absl::StrCat(
          "LibTorch's ", load_.table->name, " has no `", name, "`, which group ", g,
          " of the stored optimizer sets to ", value->ToString()));
    }
    if (const auto* dict = std::get_if<Value::DictEntries>(&group.variant())) {
      for (const auto& [key, value] : dict->entries) {
        if (known.count(TextOf(key)) > 0) continue;
        report_.skipped.push_back(
            absl::StrCat("optimizer:param_groups/", g, "/", TextOf(key)));
      }
    }
    return absl::OkStatus();
  }

  static std::vector<std::string> NamesIn(const Value& group) {
    std::vector<std::string> names;
    if (const std::vector<Value>* stored = ListOf(group.Find("param_names"))) {
      for (const Value& name : *stored) names.push_back(TextOf(name));
    }
    return names;
  }

  // The stored id of each of our parameters.
  absl::StatusOr<std::vector<Value>> MatchParameters(
      size_t g, const Value& group, const std::vector<torch::Tensor>& ours) {
    const std::vector<Value>* ids = ListOf(group.Find("params"));
    if (ids == nullptr) return Refuse(absl::StrCat("group ", g, " has no `params`"));
    const std::vector<Value>* stored_names = ListOf(group.Find("param_names"));
    const std::vector<std::string> our_names = names_.FindAll(ours);
    if (stored_names != nullptr && our_names.empty() && !ours.empty() &&
        !names_.empty()) {
      return RefuseNameless(g, group, ours);
    }
    if (stored_names == nullptr || our_names.empty() ||
        stored_names->size() != ids->size()) {
      if (ids->size() != ours.size()) {
        return Refuse(absl::StrCat("group ", g, " has ", ids->size(),
                                   " parameter(s), the optimizer's has ", ours.size()));
      }
      report_.inferred = report_.inferred || !ours.empty();
      return *ids;
    }
    std::map<std::string, Value> by_name;
    for (size_t i = 0; i < ids->size(); ++i) {
      absl::StatusOr<std::string> name = renames_.Apply(TextOf((*stored_names)[i]));
      if (!name.ok()) return name.status();
      by_name.emplace(*std::move(name), (*ids)[i]);
    }
    std::vector<Value> matched;
    std::vector<std::string> absent;
    for (const std::string& name : our_names) {
      const auto it = by_name.find(name);
      if (it == by_name.end()) {
        absent.push_back(name);
        continue;
      }
      matched.push_back(it->second);
      by_name.erase(it);
    }
    if (absent.empty() && by_name.empty()) return matched;
    std::vector<std::string> surplus;
    for (const auto& [name, id] : by_name) surplus.push_back(name);
    return Refuse(absl::StrCat("group ", g, " holds other parameters: not stored: [",
                               absl::StrJoin(absent, ", "), "]; not in the optimizer: [",
                               absl::StrJoin(surplus, ", "), "]"));
  }

  // Names on both sides, and yet some of our parameters have none: their order tells
  // nothing.
  absl::Status RefuseNameless(size_t g, const Value& group,
                              const std::vector<torch::Tensor>& ours) const {
    std::vector<std::string> nameless;
    for (size_t p = 0; p < ours.size(); ++p) {
      if (names_.Find(ours[p]).empty()) nameless.push_back(absl::StrCat(p));
    }
    return Refuse(absl::StrCat("group ", g, " holds [",
                               absl::StrJoin(NamesIn(group), ", "),
                               "], and parameter(s) ", absl::StrJoin(nameless, ", "),
                               " of the optimizer's are none of the module's"));
  }

  absl::Status PlanState(const Value& group, const Value& id,
                         const torch::Tensor& parameter) {
    const auto found = states_.find(id.ToString());
    planned_.insert(id.ToString());
    const auto* dict = found == states_.end()
                           ? nullptr
                           : std::get_if<Value::DictEntries>(&found->second->variant());
    if (dict == nullptr || dict->entries.empty()) return absl::OkStatus();
    OptimizerLoad::ParameterState state;
    state.parameter = parameter;
    for (const auto& [key, value] : dict->entries) {
      if (value.IsNull()) continue;
      absl::Status status =
          PlanField(absl::StrCat("state/", id.ToString(), "/", TextOf(key)), TextOf(key),
                    value, state);
      if (!status.ok()) return status;
    }
    for (const std::string& name : load_.table->required(group)) {
      if (state.numbers.count(name) == 0 && state.number_tensors.count(name) == 0 &&
          state.tensors.count(name) == 0) {
        return Refuse(absl::StrCat("state/", id.ToString(), " has no `", name, "` as ",
                                   load_.table->name, " needs it"));
      }
    }
    load_.states.push_back(std::move(state));
    return absl::OkStatus();
  }

  absl::Status PlanField(const std::string& where, const std::string& name,
                         const Value& value, OptimizerLoad::ParameterState& state) {
    const auto& known = load_.table->state;
    const auto field = std::find_if(known.begin(), known.end(),
                                    [&](const auto& f) { return f.first == name; });
    if (field == known.end()) {
      return Refuse(absl::StrCat(where, " is no state of ", load_.table->name));
    }
    switch (field->second) {
      case StateKind::kScratch:
        return absl::OkStatus();
      case StateKind::kNumber:
      case StateKind::kScalarTensor:
        if (IsNumber(value)) {
          state.numbers[name] = value;
          return absl::OkStatus();
        }
        return PlanScalar(where, name, field->second, value, state);
      case StateKind::kLikeParameter:
      case StateKind::kFlat:
        return PlanTensor(where, name, field->second, value, state);
      case StateKind::kFlatList:
      case StateKind::kScalarList: {
        const std::vector<Value>* list = ListOf(&value);
        if (list == nullptr) return Refuse(absl::StrCat(where, " is no list"));
        state.tensors[name];
        for (size_t i = 0; i < list->size(); ++i) {
          const std::string item = absl::StrCat(where, "/", i);
          absl::Status status =
              field->second == StateKind::kFlatList
                  ? PlanTensor(item, name, StateKind::kFlat, (*list)[i], state)
                  : PlanScalar(item, name, StateKind::kScalarTensor, (*list)[i], state);
          if (!status.ok()) return status;
        }
        return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Position(const std::string& where, const Value& value) {
    const auto* named = std::get_if<Value::TensorKey>(&value.variant());
    if (named == nullptr) return Refuse(absl::StrCat(where, " is no tensor"));
    const int64_t index = plan_.Find("optimizer", named->key);
    if (index >= 0) return index;
    return Refuse(absl::StrCat("tensor `optimizer:", named->key,
                               "` is left out by include, exclude or slices"));
  }

  absl::Status PlanScalar(const std::string& where, const std::string& name,
                          StateKind kind, const Value& value,
                          OptimizerLoad::ParameterState& state) {
    absl::StatusOr<int64_t> index = Position(where, value);
    if (!index.ok()) return index.status();
    const std::vector<int64_t>& shape = plan_.info(*index).shape;
    if (!shape.empty() && shape != std::vector<int64_t>{1}) {
      return Refuse(absl::StrCat(where, " has shape ", ShapeText(shape)));
    }
    if (kind == StateKind::kNumber) {
      state.number_tensors[name] = *index;
    } else {
      state.tensors[name].push_back(*index);
    }
    return absl::OkStatus();
  }

  absl::Status PlanTensor(const std::string& where, const std::string& name,
                          StateKind kind, const Value& value,
                          OptimizerLoad::ParameterState& state) {
    absl::StatusOr<int64_t> index = Position(where, value);
    if (!index.ok()) return index.status();
    const TensorInfo& info = plan_.info(*index);
    const std::vector<int64_t> wanted = kind == StateKind::kFlat
                                            ? std::vector<int64_t>{flat_size_}
                                            : state.parameter.sizes().vec();
    if (wanted != info.shape) {
      const std::string whose =
          kind == StateKind::kFlat
              ? "its parameters together are "
              : absl::StrCat("parameter `", names_.Find(state.parameter), "` is ");
      return Refuse(absl::StrCat(where, " is ", ShapeText(info.shape), ", ", whose,
                                 ShapeText(wanted)));
    }
    absl::StatusOr<DType> dtype = DTypeFromTorch(state.parameter.scalar_type());
    if (dtype.ok() && *dtype != info.dtype) {
      report_.dtype_change.push_back(
          {absl::StrCat("optimizer:", info.key), info.dtype, *dtype});
    }
    state.tensors[name].push_back(*index);
    return absl::OkStatus();
  }

  torch::optim::Optimizer& optimizer_;
  const Value& stored_;
  const PlanIndex& plan_;
  const ParameterNames& names_;
  const KeyRenames& renames_;
  LoadReport& report_;
  std::map<std::string, const Value*> states_;  // by the text of their id
  std::set<std::string> planned_;               // the ids that a group lists
  int64_t flat_size_ = 0;                       // elements of the group at hand
  OptimizerLoad load_;
};

}  // namespace

absl::StatusOr<OptimizerLoad> PlanOptimizer(torch::optim::Optimizer& optimizer,
                                            const Value& stored, const PlanIndex& plan,
                                            const ParameterNames& names,
                                            const KeyRenames& renames,
                                            LoadReport& report) {
  return Planner(optimizer, stored, plan, names, renames, report).Run();
}

absl::Status ApplyOptimizer(torch::optim::Optimizer& optimizer, const OptimizerLoad& load,
                            const std::function<torch::Tensor(int64_t)>& fetched) {
  return Guarded("restoring the optimizer", [&]() -> absl::Status {
    const torch::NoGradGuard no_grad;
    std::remove_reference_t<decltype(optimizer.state())> states;
    for (const OptimizerLoad::ParameterState& planned : load.states) {
      LoadedState loaded;
      loaded.numbers = planned.numbers;
      for (const auto& [name, index] : planned.number_tensors) {
        loaded.numbers[name] = fetched(index).item<double>();
      }
      // As Python does: state follows its parameter's type and device.
      auto target = torch::TensorOptions().device(planned.parameter.device());
      if (planned.parameter.is_floating_point()) {
        target = target.dtype(planned.parameter.scalar_type());
      }
      for (const auto& [name, indexes] : planned.tensors) {
        std::vector<torch::Tensor>& tensors = loaded.tensors[name];
        for (const int64_t index : indexes) tensors.push_back(fetched(index).to(target));
      }
      for (const auto& [name, kind] : load.table->state) {
        if (kind != StateKind::kScalarTensor && kind != StateKind::kScalarList) continue;
        for (torch::Tensor& tensor : loaded.tensors[name]) tensor = tensor.reshape({});
        if (loaded.numbers.count(name) == 0) continue;
        loaded.tensors[name] = {torch::full({}, loaded.Double(name), target)};
      }
      states[StateKey(planned.parameter)] = load.table->make_state(loaded);
    }
    std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options;
    for (const Value* group : load.groups) {
      options.push_back(load.table->make_options(*group));
    }
    optimizer.state() = std::move(states);
    for (size_t g = 0; g < options.size(); ++g) {
      optimizer.param_groups()[g].set_options(std::move(options[g]));
    }
    return absl::OkStatus();
  });
}

}  // namespace modelstore::torch_internal
