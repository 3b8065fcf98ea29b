#include "client/torch/optimizer_table.h"

#include <c10/util/string_utils.h>

#include <tuple>

#include "absl/strings/str_cat.h"

namespace modelstore::torch_internal {
namespace {

using torch::optim::AdamOptions;
using torch::optim::AdamParamState;
using torch::optim::OptimizerOptions;
using torch::optim::OptimizerParamState;
using torch::optim::SGDOptions;
using torch::optim::SGDParamState;

double Number(const Value& group, std::string_view name) {
  return group.Find(name)->AsDouble();
}

// Python 1.13 keeps Adam's step as a float32 tensor; from 2^24 on that cannot
// count, so a larger step is kept in float64, which Python reads as well.
torch::Tensor StepTensor(int64_t step) {
  const bool exact = static_cast<int64_t>(static_cast<float>(step)) == step;
  return torch::full({}, step, exact ? torch::kFloat : torch::kDouble);
}

torch::Tensor Named(const std::map<std::string, torch::Tensor>& tensors,
                    const std::string& name) {
  const auto it = tensors.find(name);
  return it == tensors.end() ? torch::Tensor() : it->second;
}

OptimizerTable SgdTable() {
  OptimizerTable table;
  table.name = "SGD";
  table.python_only = {
      {"maximize", false}, {"foreach", Value()}, {"differentiable", false}};
  table.indifferent = {"foreach", "differentiable"};
  table.tensor_names = {"momentum_buffer"};
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const SGDOptions&>(any);
    return std::vector<std::pair<std::string, Value>>{
        {"lr", options.lr()},
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
    options->nesterov(group.Find("nesterov")->AsBool());
    return options;
  };
  table.read_state = [](const OptimizerParamState& any) {
    StateTensors tensors;
    const auto& state = static_cast<const SGDParamState&>(any);
    if (state.momentum_buffer().defined()) {
      tensors.emplace_back("momentum_buffer", state.momentum_buffer());
    }
    return tensors;
  };
  table.make_state = [](const std::map<std::string, torch::Tensor>& tensors, int64_t) {
    auto state = std::make_unique<SGDParamState>();
    state->momentum_buffer(Named(tensors, "momentum_buffer"));
    return state;
  };
  return table;
}

OptimizerTable AdamTable() {
  OptimizerTable table;
  table.name = "Adam";
  table.python_only = {{"maximize", false},
                       {"foreach", Value()},
                       {"capturable", false},
                       {"differentiable", false},
                       {"fused", false}};
  table.indifferent = {"foreach", "capturable", "differentiable", "fused"};
  table.tensor_names = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  table.has_step = true;
  table.read_options = [](const OptimizerOptions& any) {
    const auto& options = static_cast<const AdamOptions&>(any);
    return std::vector<std::pair<std::string, Value>>{
        {"lr", options.lr()},
        {"betas",
         Value::Tuple({std::get<0>(options.betas()), std::get<1>(options.betas())})},
        {"eps", options.eps()},
        {"weight_decay", options.weight_decay()},
        {"amsgrad", options.amsgrad()}};
  };
  table.make_options = [](const Value& group) {
    auto options = std::make_unique<AdamOptions>(Number(group, "lr"));
    const auto& betas = std::get<Value::Sequence>(group.Find("betas")->variant()).values;
    options->betas({betas.at(0).AsDouble(), betas.at(1).AsDouble()});
    options->eps(Number(group, "eps"));
    options->weight_decay(Number(group, "weight_decay"));
    options->amsgrad(group.Find("amsgrad")->AsBool());
    return options;
  };
  table.read_state = [](const OptimizerParamState& any) {
    const auto& state = static_cast<const AdamParamState&>(any);
    StateTensors tensors = {{"step", StepTensor(state.step())},
                            {"exp_avg", state.exp_avg()},
                            {"exp_avg_sq", state.exp_avg_sq()}};
    if (state.max_exp_avg_sq().defined()) {
      tensors.emplace_back("max_exp_avg_sq", state.max_exp_avg_sq());
    }
    return tensors;
  };
  table.make_state = [](const std::map<std::string, torch::Tensor>& tensors,
                        int64_t step) {
    auto state = std::make_unique<AdamParamState>();
    state->step(step);
    state->exp_avg(Named(tensors, "exp_avg"));
    state->exp_avg_sq(Named(tensors, "exp_avg_sq"));
    state->max_exp_avg_sq(Named(tensors, "max_exp_avg_sq"));
    return state;
  };
  return table;
}

}  // namespace

absl::StatusOr<const OptimizerTable*> TableOf(const torch::optim::Optimizer& optimizer) {
  static const OptimizerTable sgd = SgdTable();
  static const OptimizerTable adam = AdamTable();
  if (dynamic_cast<const torch::optim::SGD*>(&optimizer) != nullptr) return &sgd;
  if (dynamic_cast<const torch::optim::Adam*>(&optimizer) != nullptr) return &adam;
  return absl::UnimplementedError(
      absl::StrCat("optimizer ", c10::demangle(typeid(optimizer).name()),
                   " cannot be saved or loaded: SGD and Adam can"));
}

std::string StateKey(const torch::Tensor& parameter) {
  return c10::guts::to_string(parameter.unsafeGetTensorImpl());
}

}  // namespace modelstore::torch_internal
