#include "client/torch/optimizer_table.h"

#include <c10/util/Type.h>

#include <deque>
#include <sstream>
#include <tuple>
#include <type_traits>

#include "absl/strings/str_cat.h"

namespace modelstore::torch_internal {
namespace {

using torch::optim::OptimizerOptions;
using torch::optim::OptimizerParamState;
using Options = std::vector<std::pair<std::string, Value>>;

// The accessors below require a group whose options were checked. They throw otherwise,
// so that a missing option is never read as 0.
double Number(const Value& group, std::string_view name) {
  return NumberOf(*group.Find(name)).value();
}
int64_t Integer(const Value& group, std::string_view name) {
  return static_cast<int64_t>(Number(group, name));
}
bool Flag(const Value& group, std::string_view name) { return Number(group, name) != 0; }

// Python stores a step as a float32 tensor (PyTorch 1.13: Adam, AdamW and Adagrad; 2:
// all). float32 is exact up to 2^24 only, so steps that it cannot represent are stored as
// float64, which Python accepts too.
StateField StepTensor(int64_t step) {
  const bool exact = static_cast<int64_t>(static_cast<float>(step)) == step;
  return torch::full({}, step, exact ? torch::kFloat : torch::kDouble);
}

template <typename Key>
Key KeyOf(c10::TensorImpl* parameter) {
  if constexpr (std::is_same_v<Key, std::string>) {
    std::ostringstream text;
    text << parameter;
    return text.str();
  } else {
    return parameter;
  }
}

void AddDefined(const char* name, const torch::Tensor& tensor, OptimizerState& state) {
  if (tensor.defined()) state.emplace_back(name, tensor);
}

// The tables below follow PyTorch 1.13 and 2: python_only lists the options that Python's
// class has and LibTorch's lacks.

OptimizerTable SgdTable() {
  using torch::optim::SGDOptions, torch::optim::SGDParamState;
  OptimizerTable table;
  table.name = "SGD";
  table.python_only = {
      {"maximize", false}, {"foreach", Value()}, {"differentiable", false}};
  table.indifferent = {"foreach", "differentiable"};
  table.state = {{"momentum_buffer", StateKind::kLikeParameter}};
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const SGDOptions&>(any);
    return Options{{"lr", options.lr()},
                   {"momentum", options.momentum()},
                   {"dampening", options.dampening()},
                   {"weight_decay", options.weight_decay()},
                   {"nesterov", options.nesterov()}};
  };
  table.make_options = [](const Value& group) {
    auto options = std::make_unique<SGDOptions>(Number(group, "lr"));
    options->momentum(Number(group, "momentum"));
    options->dampening(Number(group, "dampening"));
    options->weight_decay(Number(group, "weight_decay"));
    options->nesterov(Flag(group, "nesterov"));
    return options;
  };
  // A missing momentum buffer is created at the next step, as in Python.
  table.required = [](const Value&) { return std::vector<std::string>(); };
  table.read_state = [](const OptimizerParamState& any) {
    OptimizerState fields;
    AddDefined("momentum_buffer",
               static_cast<const SGDParamState&>(any).momentum_buffer(), fields);
    return fields;
  };
  table.make_state = [](const LoadedState& loaded) {
    auto state = std::make_unique<SGDParamState>();
    state->momentum_buffer(loaded.Tensor("momentum_buffer"));
    return state;
  };
  return table;
}

// Adam and AdamW differ in defaults and updates, not in options and state.
template <typename AdamOptions, typename AdamParamState>
OptimizerTable AdamTable(const char* name) {
  OptimizerTable table;
  table.name = name;
  table.python_only = {{"maximize", false},
                       {"foreach", Value()},
                       {"capturable", false},
                       {"differentiable", false},
                       {"fused", false}};
  table.indifferent = {"foreach", "capturable", "differentiable", "fused"};
  table.markers = {{"decoupled_weight_decay",
                    std::is_same_v<AdamOptions, torch::optim::AdamWOptions>}};
  table.state = {{"step", StateKind::kNumber},
                 {"exp_avg", StateKind::kLikeParameter},
                 {"exp_avg_sq", StateKind::kLikeParameter},
                 {"max_exp_avg_sq", StateKind::kLikeParameter}};
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const AdamOptions&>(any);
    return Options{{"lr", options.lr()},
                   {"betas", Value::Tuple({std::get<0>(options.betas()),
                                           std::get<1>(options.betas())})},
                   {"eps", options.eps()},
                   {"weight_decay", options.weight_decay()},
                   {"amsgrad", options.amsgrad()}};
  };
  table.make_options = [](const Value& group) {
    auto options = std::make_unique<AdamOptions>(Number(group, "lr"));
    const auto& betas = std::get<Value::Sequence>(group.Find("betas")->variant()).values;
    options->betas({NumberOf(betas.at(0)).value(), NumberOf(betas.at(1)).value()});
    options->eps(Number(group, "eps"));
    options->weight_decay(Number(group, "weight_decay"));
    options->amsgrad(Flag(group, "amsgrad"));
    return options;
  };
  table.required = [](const Value& group) {
    std::vector<std::string> names = {"step", "exp_avg", "exp_avg_sq"};
    if (Flag(group, "amsgrad")) names.push_back("max_exp_avg_sq");
    return names;
  };
  table.read_state = [](const OptimizerParamState& any) {
    const auto& state = static_cast<const AdamParamState&>(any);
    OptimizerState fields = {{"step", StepTensor(state.step())}};
    AddDefined("exp_avg", state.exp_avg(), fields);
    AddDefined("exp_avg_sq", state.exp_avg_sq(), fields);
    AddDefined("max_exp_avg_sq", state.max_exp_avg_sq(), fields);
    return fields;
  };
  table.make_state = [](const LoadedState& loaded) {
    auto state = std::make_unique<AdamParamState>();
    state->step(loaded.Integer("step"));
    state->exp_avg(loaded.Tensor("exp_avg"));
    state->exp_avg_sq(loaded.Tensor("exp_avg_sq"));
    state->max_exp_avg_sq(loaded.Tensor("max_exp_avg_sq"));
    return state;
  };
  return table;
}

OptimizerTable AdagradTable() {
  using torch::optim::AdagradOptions, torch::optim::AdagradParamState;
  OptimizerTable table;
  table.name = "Adagrad";
  table.python_only = {
      {"foreach", Value()}, {"maximize", false}, {"differentiable", false}};
  table.indifferent = {"foreach", "differentiable"};
  table.state = {{"step", StateKind::kNumber}, {"sum", StateKind::kLikeParameter}};
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const AdagradOptions&>(any);
    return Options{{"lr", options.lr()},
                   {"lr_decay", options.lr_decay()},
                   {"eps", options.eps()},
                   {"weight_decay", options.weight_decay()},
                   {"initial_accumulator_value", options.initial_accumulator_value()}};
  };
  table.make_options = [](const Value& group) {
    auto options = std::make_unique<AdagradOptions>(Number(group, "lr"));
    options->lr_decay(Number(group, "lr_decay"));
    options->eps(Number(group, "eps"));
    options->weight_decay(Number(group, "weight_decay"));
    options->initial_accumulator_value(Number(group, "initial_accumulator_value"));
    return options;
  };
  table.required = [](const Value&) { return std::vector<std::string>{"step", "sum"}; };
  table.read_state = [](const OptimizerParamState& any) {
    const auto& state = static_cast<const AdagradParamState&>(any);
    OptimizerState fields = {{"step", StepTensor(state.step())}};
    AddDefined("sum", state.sum(), fields);
    return fields;
  };
  table.make_state = [](const LoadedState& loaded) {
    auto state = std::make_unique<AdagradParamState>();
    state->step(loaded.Integer("step"));
    state->sum(loaded.Tensor("sum"));
    return state;
  };
  return table;
}

// Which state fields exist depends on momentum and centered.
OptimizerTable RmsPropTable() {
  using torch::optim::RMSpropOptions, torch::optim::RMSpropParamState;
  OptimizerTable table;
  table.name = "RMSprop";
  table.python_only = {{"foreach", Value()},
                       {"maximize", false},
                       {"differentiable", false},
                       {"capturable", false}};
  table.indifferent = {"foreach", "differentiable", "capturable"};
  table.state = {{"step", StateKind::kNumber},
                 {"square_avg", StateKind::kLikeParameter},
                 {"momentum_buffer", StateKind::kLikeParameter},
                 {"grad_avg", StateKind::kLikeParameter}};
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const RMSpropOptions&>(any);
    return Options{{"lr", options.lr()},
                   {"momentum", options.momentum()},
                   {"alpha", options.alpha()},
                   {"eps", options.eps()},
                   {"centered", options.centered()},
                   {"weight_decay", options.weight_decay()}};
  };
  table.make_options = [](const Value& group) {
    auto options = std::make_unique<RMSpropOptions>(Number(group, "lr"));
    options->momentum(Number(group, "momentum"));
    options->alpha(Number(group, "alpha"));
    options->eps(Number(group, "eps"));
    options->centered(Flag(group, "centered"));
    options->weight_decay(Number(group, "weight_decay"));
    return options;
  };
  table.required = [](const Value& group) {
    std::vector<std::string> names = {"step", "square_avg"};
    if (Number(group, "momentum") > 0) names.push_back("momentum_buffer");
    if (Flag(group, "centered")) names.push_back("grad_avg");
    return names;
  };
  table.read_state = [](const OptimizerParamState& any) {
    const auto& state = static_cast<const RMSpropParamState&>(any);
    OptimizerState fields = {{"step", StepTensor(state.step())}};
    AddDefined("square_avg", state.square_avg(), fields);
    AddDefined("momentum_buffer", state.momentum_buffer(), fields);
    AddDefined("grad_avg", state.grad_avg(), fields);
    return fields;
  };
  table.make_state = [](const LoadedState& loaded) {
    auto state = std::make_unique<RMSpropParamState>();
    state->step(loaded.Integer("step"));
    state->square_avg(loaded.Tensor("square_avg"));
    state->momentum_buffer(loaded.Tensor("momentum_buffer"));
    state->grad_avg(loaded.Tensor("grad_avg"));
    return state;
  };
  return table;
}

std::vector<torch::Tensor> ToVector(const std::deque<torch::Tensor>& tensors) {
  return {tensors.begin(), tensors.end()};
}
std::deque<torch::Tensor> ToDeque(const std::vector<torch::Tensor>& tensors) {
  return {tensors.begin(), tensors.end()};
}

// One flat state per group. A max_eval that is not set is saved as max_iter * 5 / 4, the
// default of both implementations.
OptimizerTable LbfgsTable() {
  using torch::optim::LBFGSOptions, torch::optim::LBFGSParamState;
  OptimizerTable table;
  table.name = "LBFGS";
  table.of_group = true;
  table.state = {{"func_evals", StateKind::kNumber},
                 {"n_iter", StateKind::kNumber},
                 {"d", StateKind::kFlat},
                 {"t", StateKind::kNumber},
                 {"old_dirs", StateKind::kFlatList},
                 {"old_stps", StateKind::kFlatList},
                 {"ro", StateKind::kScalarList},
                 {"H_diag", StateKind::kScalarTensor},
                 {"prev_flat_grad", StateKind::kFlat},
                 {"prev_loss", StateKind::kNumber},
                 {"al", StateKind::kScratch}};
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const LBFGSOptions&>(any);
    const auto& evaluations = options.max_eval();
    const auto& search = options.line_search_fn();
    return Options{{"lr", options.lr()},
                   {"max_iter", options.max_iter()},
                   {"max_eval", evaluations.has_value() ? Value(*evaluations)
                                                        : options.max_iter() * 5 / 4},
                   {"tolerance_grad", options.tolerance_grad()},
                   {"tolerance_change", options.tolerance_change()},
                   {"history_size", options.history_size()},
                   {"line_search_fn", search.has_value() ? Value(*search) : Value()}};
  };
  table.make_options = [](const Value& group) {
    auto options = std::make_unique<LBFGSOptions>(Number(group, "lr"));
    options->max_iter(Integer(group, "max_iter"));
    options->max_eval(Integer(group, "max_eval"));
    options->tolerance_grad(Number(group, "tolerance_grad"));
    options->tolerance_change(Number(group, "tolerance_change"));
    options->history_size(Integer(group, "history_size"));
    const Value& search = *group.Find("line_search_fn");
    if (!search.IsNull()) options->line_search_fn(search.AsString().value());
    return options;
  };
  // A step that ended at its first gradient leaves counts only.
  table.required = [](const Value&) {
    return std::vector<std::string>{"func_evals", "n_iter"};
  };
  table.read_state = [](const OptimizerParamState& any) {
    const auto& state = static_cast<const LBFGSParamState&>(any);
    OptimizerState fields = {{"func_evals", Value(state.func_evals())},
                             {"n_iter", Value(state.n_iter())}};
    // No direction yet: the remaining fields have no values.
    if (!state.d().defined()) return fields;
    fields.emplace_back("d", state.d());
    fields.emplace_back("t", Value(state.t()));
    fields.emplace_back("old_dirs", ToVector(state.old_dirs()));
    fields.emplace_back("old_stps", ToVector(state.old_stps()));
    fields.emplace_back("ro", ToVector(state.ro()));
    AddDefined("H_diag", state.H_diag(), fields);
    AddDefined("prev_flat_grad", state.prev_flat_grad(), fields);
    fields.emplace_back("prev_loss", Value(state.prev_loss()));
    return fields;
  };
  table.make_state = [](const LoadedState& loaded) {
    auto state = std::make_unique<LBFGSParamState>();
    state->func_evals(loaded.Integer("func_evals"));
    state->n_iter(loaded.Integer("n_iter"));
    state->d(loaded.Tensor("d"));
    state->t(loaded.Double("t"));
    state->old_dirs(ToDeque(loaded.Tensors("old_dirs")));
    state->old_stps(ToDeque(loaded.Tensors("old_stps")));
    state->ro(ToDeque(loaded.Tensors("ro")));
    state->H_diag(loaded.Tensor("H_diag"));
    state->prev_flat_grad(loaded.Tensor("prev_flat_grad"));
    state->prev_loss(loaded.Double("prev_loss"));
    return state;
  };
  return table;
}

}  // namespace

std::optional<double> NumberOf(const Value& value) {
  if (const std::optional<bool> flag = value.AsBool()) return *flag ? 1 : 0;
  return value.AsDouble();
}

double LoadedState::Double(const std::string& name) const {
  const auto it = numbers.find(name);
  return it == numbers.end() ? 0 : NumberOf(it->second).value();
}

int64_t LoadedState::Integer(const std::string& name) const {
  const auto it = numbers.find(name);
  if (it == numbers.end()) return 0;
  if (const std::optional<int64_t> whole = it->second.AsInt()) return *whole;
  return static_cast<int64_t>(NumberOf(it->second).value());
}

torch::Tensor LoadedState::Tensor(const std::string& name) const {
  const auto it = tensors.find(name);
  return it == tensors.end() || it->second.empty() ? torch::Tensor() : it->second.front();
}

std::vector<torch::Tensor> LoadedState::Tensors(const std::string& name) const {
  const auto it = tensors.find(name);
  return it == tensors.end() ? std::vector<torch::Tensor>() : it->second;
}

absl::StatusOr<const OptimizerTable*> TableOf(const torch::optim::Optimizer& optimizer) {
  using namespace torch::optim;
  static const OptimizerTable sgd = SgdTable();
  static const OptimizerTable adam = AdamTable<AdamOptions, AdamParamState>("Adam");
  static const OptimizerTable adamw = AdamTable<AdamWOptions, AdamWParamState>("AdamW");
  static const OptimizerTable adagrad = AdagradTable();
  static const OptimizerTable rmsprop = RmsPropTable();
  static const OptimizerTable lbfgs = LbfgsTable();
  if (dynamic_cast<const SGD*>(&optimizer) != nullptr) return &sgd;
  if (dynamic_cast<const Adam*>(&optimizer) != nullptr) return &adam;
  if (dynamic_cast<const AdamW*>(&optimizer) != nullptr) return &adamw;
  if (dynamic_cast<const Adagrad*>(&optimizer) != nullptr) return &adagrad;
  if (dynamic_cast<const RMSprop*>(&optimizer) != nullptr) return &rmsprop;
  if (dynamic_cast<const LBFGS*>(&optimizer) != nullptr) return &lbfgs;
  return absl::UnimplementedError(absl::StrCat(
      "optimizer ", c10::demangle(typeid(optimizer).name()),
      " cannot be saved or loaded: SGD, Adam, AdamW, Adagrad, RMSprop and LBFGS can"));
}

StateKeyType StateKey(const torch::Tensor& parameter) {
  return KeyOf<StateKeyType>(parameter.unsafeGetTensorImpl());
}

}  // namespace modelstore::torch_internal
