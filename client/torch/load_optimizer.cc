#include "client/torch/load_optimizer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <variant>

#include "absl/strings/str_cat.h"
#include "client/torch/element_type.h"
#include "client/torch/guard.h"
#include "client/torch/match_parameters.h"
#include "client/torch/settings.h"
#include "proto/contract/errors.h"

namespace modelstore::torch_internal {

absl::Status RefuseOptimizer(absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat("the stored optimizer state does not fit: ", why));
}

namespace {

bool IsNameOrNone(const Value& value) {
  return value.IsNull() || std::holds_alternative<std::string>(value.variant());
}

// Whether a stored option has the type that LibTorch's option `ours` needs.
bool SameKind(const Value& stored, const Value& ours) {
  if (IsNameOrNone(ours)) return IsNameOrNone(stored);
  if (const auto* wanted = ListOf(&ours)) {
    const auto* values = ListOf(&stored);
    return values && values->size() == wanted->size() &&
           std::all_of(values->begin(), values->end(), IsNumber);
  }
  const std::optional<double> number = NumberOf(stored);
  if (!ours.AsInt()) return number.has_value();
  // Integer options of LibTorch: a fraction would be truncated. Integers up to 2^53 are
  // exact in a double.
  return number && std::trunc(*number) == *number && std::abs(*number) < 0x1p53;
}

// Builds the OptimizerLoad of one section. Used once.
class Planner {
 public:
  Planner(const LoadArgs& args, torch::optim::Optimizer& optimizer,
          const SectionContent& stored, const PlanIndex& plan,
          const ParameterNames& names, const KeyRenames& renames, LoadReport& report)
      : args_(args),
        optimizer_(optimizer),
        stored_(stored),
        plan_(plan),
        names_(names),
        renames_(renames),
        report_(report) {}

  absl::StatusOr<OptimizerLoad> Run() {
    absl::StatusOr<const OptimizerTable*> table = TableOf(optimizer_);
    if (!table.ok()) return table.status();
    load_.optimizer = &optimizer_;
    load_.table = *table;
    const std::vector<Value>* groups = ListOf(stored_.value.Find("param_groups"));
    const Value* states = stored_.value.Find("state");
    if (groups == nullptr || states == nullptr) {
      return RefuseOptimizer("it is no optimizer's state_dict");
    }
    if (const auto* entries = std::get_if<Value::DictEntries>(&states->variant())) {
      for (const auto& [id, fields] : entries->entries) states_[id.ToString()] = &fields;
    }
    if (groups->size() != optimizer_.param_groups().size()) {
      return RefuseOptimizer(absl::StrCat("it has ", groups->size(),
                                          " parameter group(s), the ", "optimizer has ",
                                          optimizer_.param_groups().size()));
    }
    if (absl::Status s = CheckClass(*groups); !s.ok()) return s;
    if (absl::Status s = PlanGroups(*groups); !s.ok()) return s;
    // State of ids that no group lists: Python keeps it, but LibTorch's state is keyed by
    // parameter, so it is skipped.
    for (const auto& [id, fields] : states_) {
      if (planned_.count(id) == 0) {
        report_.skipped.push_back(NameOf(absl::StrCat("state/", id)));
      }
    }
    return std::move(load_);
  }

 private:
  // `optimizer:param_groups/0/lr`
  std::string NameOf(absl::string_view key) const {
    return absl::StrCat(stored_.name, ":", key);
  }
  std::string NameOfOption(size_t group, absl::string_view option) const {
    return NameOf(absl::StrCat("param_groups/", group, "/", option));
  }

  // Reports a stored optimizer of another class with the same state fields: AdamW's state
  // fits Adam, but Adam applies other updates.
  absl::Status CheckClass(const std::vector<Value>& groups) {
    std::vector<LoadReport::SettingChange> changes;
    const std::string& ours = load_.table->name;
    const Value* stored = stored_.metadata.Find("class");
    if (stored != nullptr && TextOf(*stored) != ours) {
      changes.push_back({stored_.name, TextOf(*stored), ours});
    }
    for (size_t g = 0; g < groups.size(); ++g) {
      for (const auto& [name, only] : load_.table->markers) {
        const Value* value = groups[g].Find(name);
        if (value == nullptr || SameSetting(*value, only)) continue;
        changes.push_back({NameOfOption(g, name), value->ToString(), only.ToString()});
      }
    }
    if (changes.empty() || args_.settings == Policy::kIgnore) return absl::OkStatus();
    report_.settings.insert(report_.settings.end(), changes.begin(), changes.end());
    if (args_.settings != Policy::kFail) return absl::OkStatus();
    return RefuseOptimizer(
        absl::StrCat(SettingsText(changes), "; to adopt it all the same set `settings`"));
  }

  // Compares all options first, so that one error names them all; then matches parameters
  // and plans their state.
  absl::Status PlanGroups(const std::vector<Value>& groups) {
    for (size_t g = 0; g < groups.size(); ++g) {
      if (absl::Status s = CheckOptions(g, groups[g]); !s.ok()) return s;
    }
    if (args_.hyperparameters == Policy::kFail && !report_.hyperparameters.empty()) {
      return RefuseOptimizer(SettingsText(report_.hyperparameters));
    }
    const ParameterMatching matching{optimizer_,
                                     *load_.table,
                                     groups,
                                     names_,
                                     renames_,
                                     args_.parameter_order != Policy::kFail,
                                     [this](const Value& id) { return HasState(id); },
                                     [this](const Value& a, const Value& b) {
                                       if (!SameState(a, b)) return false;
                                       planned_.insert(b.ToString());
                                       return true;
                                     }};
    bool inferred = false;
    absl::StatusOr<MatchedGroups> matched = MatchParameters(matching, inferred);
    if (!matched.ok()) return matched.status();
    if (inferred) report_.inferred.push_back(stored_.name);
    for (size_t g = 0; g < groups.size(); ++g) {
      flat_size_ = 0;
      // LBFGS flattens all parameters of the group, a parameter listed twice twice.
      for (const torch::Tensor& parameter : optimizer_.param_groups()[g].params()) {
        flat_size_ += parameter.numel();
      }
      for (const MatchedParameter& m : (*matched)[g]) {
        absl::Status status = PlanState(groups[g], m.id, m.parameter);
        if (!status.ok()) return status;
      }
      load_.groups.push_back(&groups[g]);
    }
    return absl::OkStatus();
  }

  // The state dict of a stored id; null if it has none.
  const Value::DictEntries* StateOf(const Value& id) const {
    const auto found = states_.find(id.ToString());
    return found == states_.end()
               ? nullptr
               : std::get_if<Value::DictEntries>(&found->second->variant());
  }

  // Whether any field is not None: Python's SGD stores `momentum_buffer: None` before its
  // first step with momentum.
  bool HasState(const Value& id) const {
    const auto* state = StateOf(id);
    return state != nullptr &&
           std::any_of(state->entries.begin(), state->entries.end(),
                       [](const auto& field) { return !field.second.IsNull(); });
  }

  // Whether two ids have the same state, so that one parameter may have both.
  bool SameState(const Value& a, const Value& b) const {
    if (a == b) return true;
    const auto *x = StateOf(a), *y = StateOf(b);
    if (x == nullptr || y == nullptr) return HasState(a) == HasState(b);
    return std::equal(x->entries.begin(), x->entries.end(), y->entries.begin(),
                      y->entries.end(), [this](const auto& f, const auto& g) {
                        return f.first == g.first && SameField(f.second, g.second);
                      });
  }

  // Two tensors are equal here only if they are stored as tied.
  bool SameField(const Value& a, const Value& b) const {
    const auto* s = std::get_if<Value::TensorKey>(&a.variant());
    const auto* t = std::get_if<Value::TensorKey>(&b.variant());
    if (s != nullptr && t != nullptr) {
      const int64_t i = plan_.Find(stored_.name, s->key);
      const int64_t j = plan_.Find(stored_.name, t->key);
      if (i < 0 || j < 0) return false;
      // Tied parameters have separate step tensors, so scalars are not compared.
      return plan_.Root(i) == plan_.Root(j) ||
             (plan_.info(i).shape.empty() && plan_.info(j).shape.empty());
    }
    const std::vector<Value>*x = ListOf(&a), *y = ListOf(&b);
    if (x != nullptr && y != nullptr) {
      return std::equal(
          x->begin(), x->end(), y->begin(), y->end(),
          [this](const Value& v, const Value& w) { return SameField(v, w); });
    }
    return a == b;
  }

  // Checks the options of one group: those that LibTorch has must be present and of the
  // right type; those that only Python has must have a value that LibTorch can honour;
  // all others are reported as skipped.
  absl::Status CheckOptions(size_t g, const Value& group) {
    std::set<std::string> known = {"params", "param_names"};
    for (const auto& [name, only] : load_.table->markers) known.insert(name);
    for (const auto& [name, ours] :
         load_.table->read_options(optimizer_.param_groups()[g].options())) {
      known.insert(name);
      const Value* value = group.Find(name);
      if (value == nullptr || !SameKind(*value, ours)) {
        return RefuseOptimizer(absl::StrCat("group ", g, " has no `", name, "` as ",
                                            load_.table->name, " needs it"));
      }
      if (args_.hyperparameters == Policy::kIgnore || SameSetting(*value, ours)) continue;
      report_.hyperparameters.push_back(
          {NameOfOption(g, name), value->ToString(), ours.ToString()});
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
        report_.skipped.push_back(NameOfOption(g, TextOf(key)));
      }
    }
    return absl::OkStatus();
  }

  // Plans the state of one parameter. A parameter in several groups is planned once.
  absl::Status PlanState(const Value& group, const Value& id,
                         const torch::Tensor& parameter) {
    planned_.insert(id.ToString());
    const auto [earlier, first] = id_of_.try_emplace(StateKey(parameter), id);
    if (!first && !SameState(earlier->second, id)) {
      return RefuseOptimizer(absl::StrCat("it has several states for the parameter `",
                                          names_.Find(parameter),
                                          "`, which is in several groups"));
    }
    if (!first || !HasState(id)) return absl::OkStatus();
    const Value::DictEntries* dict = StateOf(id);
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
        return RefuseOptimizer(absl::StrCat("state/", id.ToString(), " has no `", name,
                                            "` as ", load_.table->name, " needs it"));
      }
    }
    load_.states.push_back(std::move(state));
    return absl::OkStatus();
  }

  // Plans one field; `where` is its path for messages, `state/0/exp_avg`.
  absl::Status PlanField(const std::string& where, const std::string& name,
                         const Value& value, OptimizerLoad::ParameterState& state) {
    const auto& known = load_.table->state;
    const auto field = std::find_if(known.begin(), known.end(),
                                    [&](const auto& f) { return f.first == name; });
    if (field == known.end()) {
      return RefuseOptimizer(absl::StrCat(where, " is no state of ", load_.table->name));
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
        if (list == nullptr) return RefuseOptimizer(absl::StrCat(where, " is no list"));
        // Creates the entry, so that an empty list counts as present.
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

  // The plan position of the tensor that `value` refers to.
  absl::StatusOr<int64_t> Position(const std::string& where, const Value& value) {
    const auto* named = std::get_if<Value::TensorKey>(&value.variant());
    if (named == nullptr) return RefuseOptimizer(absl::StrCat(where, " is no tensor"));
    const int64_t index = plan_.Find(stored_.name, named->key);
    if (index >= 0) return index;
    return RefuseOptimizer(absl::StrCat("tensor `", NameOf(named->key),
                                        "` is left out by include, exclude or slices"));
  }

  absl::Status PlanScalar(const std::string& where, const std::string& name,
                          StateKind kind, const Value& value,
                          OptimizerLoad::ParameterState& state) {
    absl::StatusOr<int64_t> index = Position(where, value);
    if (!index.ok()) return index.status();
    const std::vector<int64_t>& shape = plan_.info(*index).shape;
    if (!shape.empty() && shape != std::vector<int64_t>{1}) {
      return RefuseOptimizer(absl::StrCat(where, " has shape ", ShapeText(shape)));
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
      return RefuseOptimizer(absl::StrCat(where, " is ", ShapeText(info.shape), ", ",
                                          whose, ShapeText(wanted)));
    }
    absl::StatusOr<DType> dtype = DTypeFromTorch(state.parameter.scalar_type());
    if (dtype.ok() && *dtype != info.dtype) {
      report_.dtype_change.push_back({NameOf(info.key), info.dtype, *dtype});
    }
    state.tensors[name].push_back(*index);
    return absl::OkStatus();
  }

  const LoadArgs& args_;
  torch::optim::Optimizer& optimizer_;
  const SectionContent& stored_;
  const PlanIndex& plan_;
  const ParameterNames& names_;
  const KeyRenames& renames_;
  LoadReport& report_;
  std::map<std::string, const Value*> states_;  // stored state by text of the id
  std::set<std::string> planned_;               // ids that a group lists
  std::map<StateKeyType, Value> id_of_;         // stored ids of planned parameters
  int64_t flat_size_ = 0;                       // elements of the current group
  OptimizerLoad load_;
};

}  // namespace

absl::StatusOr<OptimizerLoad> PlanOptimizer(
    const LoadArgs& args, torch::optim::Optimizer& optimizer,
    const SectionContent& stored, const PlanIndex& plan, const ParameterNames& names,
    const KeyRenames& renames, LoadReport& report) {
  absl::StatusOr<OptimizerLoad> load =
      Planner(args, optimizer, stored, plan, names, renames, report).Run();
  if (load.ok() || stored.name == "optimizer") return load;
  return Annotate(load.status(), absl::StrCat("section `", stored.name, "`"));
}

namespace {

using States =
    std::remove_reference_t<decltype(std::declval<torch::optim::Optimizer&>().state())>;

// New state and options of one optimizer, not yet installed.
struct MadeOptimizer {
  States states;
  std::vector<std::unique_ptr<torch::optim::OptimizerOptions>> options;  // of each group
};

MadeOptimizer MakeOptimizer(const OptimizerLoad& load,
                            const std::function<torch::Tensor(int64_t)>& fetched) {
  MadeOptimizer made;
  for (const OptimizerLoad::ParameterState& planned : load.states) {
    LoadedState loaded;
    loaded.numbers = planned.numbers;
    for (const auto& [name, index] : planned.number_tensors) {
      loaded.numbers[name] = fetched(index).item<double>();
    }
    // As in Python, state takes the dtype (if floating point) and device of its
    // parameter.
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
    made.states[StateKey(planned.parameter)] = load.table->make_state(loaded);
  }
  for (const Value* group : load.groups) {
    made.options.push_back(load.table->make_options(*group));
  }
  return made;
}

}  // namespace

absl::Status ApplyOptimizers(const std::vector<OptimizerLoad>& loads,
                             const std::function<torch::Tensor(int64_t)>& fetched) {
  return Guarded("restoring the optimizers", [&]() -> absl::Status {
    const c10::InferenceMode training(false);
    const torch::NoGradGuard no_grad;
    // Creates everything before the first change: creation may throw, the moves below do
    // not.
    std::vector<MadeOptimizer> made;
    for (const OptimizerLoad& load : loads) made.push_back(MakeOptimizer(load, fetched));
    for (size_t i = 0; i < loads.size(); ++i) {
      torch::optim::Optimizer& optimizer = *loads[i].optimizer;
      optimizer.state() = std::move(made[i].states);
      for (size_t g = 0; g < made[i].options.size(); ++g) {
        optimizer.param_groups()[g].set_options(std::move(made[i].options[g]));
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace modelstore::torch_internal
