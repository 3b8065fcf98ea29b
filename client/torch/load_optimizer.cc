#include "client/torch/load_optimizer.h"

#include <algorithm>
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

bool IsNumber(const Value& value) {
  return std::holds_alternative<double>(value.variant()) ||
         std::holds_alternative<int64_t>(value.variant()) ||
         std::holds_alternative<bool>(value.variant());
}

bool SameKind(const Value& stored, const Value& ours) {
  if (const auto* wanted = ListOf(&ours)) {
    const auto* values = ListOf(&stored);
    return values && values->size() == wanted->size() &&
           std::all_of(values->begin(), values->end(), IsNumber);
  }
  return IsNumber(stored);
}

class Planner {
 public:
  Planner(torch::optim::Optimizer& optimizer, const Value& stored, const PlanIndex& plan,
          const ParameterNames& names, LoadReport& report)
      : optimizer_(optimizer),
        stored_(stored),
        plan_(plan),
        names_(names),
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
    return std::move(load_);
  }

 private:
  absl::Status PlanGroup(size_t g, const Value& group) {
    if (absl::Status status = CheckOptions(g, group); !status.ok()) return status;
    const std::vector<torch::Tensor>& ours = optimizer_.param_groups()[g].params();
    absl::StatusOr<std::vector<Value>> ids = MatchParameters(g, group, ours);
    if (!ids.ok()) return ids.status();
    for (size_t p = 0; p < ours.size(); ++p) {
      absl::Status status = PlanState((*ids)[p], ours[p]);
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
        if (known.count(key.AsString()) > 0) continue;
        report_.skipped.push_back(
            absl::StrCat("optimizer:param_groups/", g, "/", key.AsString()));
      }
    }
    return absl::OkStatus();
  }

  // The stored id of each of our parameters.
  absl::StatusOr<std::vector<Value>> MatchParameters(
      size_t g, const Value& group, const std::vector<torch::Tensor>& ours) {
    const std::vector<Value>* ids = ListOf(group.Find("params"));
    if (ids == nullptr) return Refuse(absl::StrCat("group ", g, " has no `params`"));
    const std::vector<Value>* stored_names = ListOf(group.Find("param_names"));
    const std::vector<std::string> our_names = names_.FindAll(ours);
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
      by_name.emplace((*stored_names)[i].AsString(), (*ids)[i]);
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

  absl::Status PlanState(const Value& id, const torch::Tensor& parameter) {
    const auto found = states_.find(id.ToString());
    const auto* dict = found == states_.end()
                           ? nullptr
                           : std::get_if<Value::DictEntries>(&found->second->variant());
    if (dict == nullptr || dict->entries.empty()) return absl::OkStatus();
    OptimizerLoad::ParameterState state;
    state.parameter = parameter;
    bool has_step = false;
    for (const auto& [key, value] : dict->entries) {
      if (value.IsNull()) continue;
      const std::string where =
          absl::StrCat("state/", id.ToString(), "/", key.AsString());
      absl::Status status = key.AsString() == "step" && load_.table->has_step
                                ? PlanStep(where, value, state)
                                : PlanTensor(where, key.AsString(), value, state);
      if (!status.ok()) return status;
      has_step = has_step || key.AsString() == "step";
    }
    if (load_.table->has_step && (!has_step || state.tensors.count("exp_avg") == 0 ||
                                  state.tensors.count("exp_avg_sq") == 0)) {
      return Refuse(absl::StrCat("state/", id.ToString(), " is not complete for ",
                                 load_.table->name));
    }
    load_.states.push_back(std::move(state));
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

  absl::Status PlanStep(const std::string& where, const Value& value,
                        OptimizerLoad::ParameterState& state) {
    if (IsNumber(value)) {
      state.step = static_cast<int64_t>(value.AsDouble());
      return absl::OkStatus();
    }
    absl::StatusOr<int64_t> index = Position(where, value);
    if (!index.ok()) return index.status();
    const std::vector<int64_t>& shape = plan_.info(*index).shape;
    if (shape.empty() || shape == std::vector<int64_t>{1}) {
      state.step_index = *index;
      return absl::OkStatus();
    }
    return Refuse(absl::StrCat(where, " has shape ", ShapeText(shape)));
  }

  absl::Status PlanTensor(const std::string& where, const std::string& name,
                          const Value& value, OptimizerLoad::ParameterState& state) {
    const auto& known = load_.table->tensor_names;
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Refuse(absl::StrCat(where, " is no state of ", load_.table->name));
    }
    absl::StatusOr<int64_t> index = Position(where, value);
    if (!index.ok()) return index.status();
    const TensorInfo& info = plan_.info(*index);
    if (state.parameter.sizes() != c10::IntArrayRef(info.shape)) {
      const std::string parameter = names_.Find(state.parameter);
      return Refuse(absl::StrCat(where, " is ", ShapeText(info.shape), ", parameter `",
                                 parameter, "` is ", ShapeText(state.parameter.sizes())));
    }
    absl::StatusOr<DType> wanted = DTypeFromTorch(state.parameter.scalar_type());
    if (wanted.ok() && *wanted != info.dtype) {
      report_.dtype_change.push_back(
          {absl::StrCat("optimizer:", info.key), info.dtype, *wanted});
    }
    state.tensors[name] = *index;
    return absl::OkStatus();
  }

  torch::optim::Optimizer& optimizer_;
  const Value& stored_;
  const PlanIndex& plan_;
  const ParameterNames& names_;
  LoadReport& report_;
  std::map<std::string, const Value*> states_;  // by the text of their id
  OptimizerLoad load_;
};

}  // namespace

absl::StatusOr<OptimizerLoad> PlanOptimizer(torch::optim::Optimizer& optimizer,
                                            const Value& stored, const PlanIndex& plan,
                                            const ParameterNames& names,
                                            LoadReport& report) {
  return Planner(optimizer, stored, plan, names, report).Run();
}

absl::Status ApplyOptimizer(torch::optim::Optimizer& optimizer, const OptimizerLoad& load,
                            const std::function<torch::Tensor(int64_t)>& fetched) {
  return Guarded("restoring the optimizer", [&]() -> absl::Status {
    const torch::NoGradGuard no_grad;
    std::remove_reference_t<decltype(optimizer.state())> states;
    for (const OptimizerLoad::ParameterState& planned : load.states) {
      std::map<std::string, torch::Tensor> tensors;
      for (const auto& [name, index] : planned.tensors) {
        torch::Tensor tensor = fetched(index);
        // As Python does: state follows its parameter's type and device.
        if (planned.parameter.is_floating_point()) {
          tensor = tensor.to(planned.parameter.scalar_type());
        }
        tensors[name] = tensor.to(planned.parameter.device());
      }
      int64_t step = planned.step;
      if (planned.step_index >= 0) {
        step = static_cast<int64_t>(fetched(planned.step_index).item<double>());
      }
      states[StateKey(planned.parameter)] = load.table->make_state(tensors, step);
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
