#include "client/torch/built_module.h"

#include <functional>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "proto/contract/architecture/value.h"

namespace modelstore::torch_internal {
namespace forward_steps {

namespace F = torch::nn::functional;
using torch::Tensor;

// Positional arguments of one step. ParseStep() has checked their types and number.
class StepArguments {
 public:
  explicit StepArguments(const ForwardStep& step) : values_(step.arguments) {}

  int64_t Int(size_t i, int64_t otherwise = 0) const {
    return i < values_.size() ? AsInt(values_[i]).value_or(otherwise) : otherwise;
  }
  double Number(size_t i, double otherwise) const {
    return i < values_.size() ? AsNumber(values_[i]).value_or(otherwise) : otherwise;
  }
  std::vector<int64_t> Ints() const {
    std::vector<int64_t> ints;
    for (size_t i = 0; i < values_.size(); ++i) ints.push_back(Int(i));
    return ints;
  }

 private:
  const std::vector<v1::Value>& values_;
};

using Function = std::function<Tensor(const Tensor&, const StepArguments&, bool)>;

// One entry for each of ForwardFunctions() except add and mul. The third argument is
// whether the module is training.
const std::unordered_map<std::string_view, Function>& Functions() {
  using A = StepArguments;
  static const auto* const functions = new std::unordered_map<std::string_view, Function>{
      {"relu", [](const Tensor& x, const A&, bool) { return torch::relu(x); }},
      {"relu6", [](const Tensor& x, const A&, bool) { return torch::relu6(x); }},
      {"gelu", [](const Tensor& x, const A&, bool) { return torch::gelu(x); }},
      {"elu",
       [](const Tensor& x, const A& a, bool) { return torch::elu(x, a.Number(0, 1)); }},
      {"silu", [](const Tensor& x, const A&, bool) { return torch::silu(x); }},
      {"selu", [](const Tensor& x, const A&, bool) { return torch::selu(x); }},
      {"mish", [](const Tensor& x, const A&, bool) { return torch::mish(x); }},
      {"leaky_relu", [](const Tensor& x, const A& a,
                        bool) { return torch::leaky_relu(x, a.Number(0, 0.01)); }},
      {"hardswish", [](const Tensor& x, const A&, bool) { return torch::hardswish(x); }},
      {"sigmoid", [](const Tensor& x, const A&, bool) { return torch::sigmoid(x); }},
      {"logsigmoid",
       [](const Tensor& x, const A&, bool) { return torch::log_sigmoid(x); }},
      {"tanh", [](const Tensor& x, const A&, bool) { return torch::tanh(x); }},
      {"softplus", [](const Tensor& x, const A&, bool) { return torch::softplus(x); }},
      {"softmax",
       [](const Tensor& x, const A& a, bool) { return torch::softmax(x, a.Int(0)); }},
      {"log_softmax",
       [](const Tensor& x, const A& a, bool) { return torch::log_softmax(x, a.Int(0)); }},
      {"dropout",
       [](const Tensor& x, const A& a, bool training) {
         return torch::dropout(x, a.Number(0, 0.5), training);
       }},
      {"flatten", [](const Tensor& x, const A& a,
                     bool) { return torch::flatten(x, a.Int(0, 0), a.Int(1, -1)); }},
      {"view", [](const Tensor& x, const A& a, bool) { return x.reshape(a.Ints()); }},
      {"squeeze", [](const Tensor& x, const A& a, bool) { return x.squeeze(a.Int(0)); }},
      {"unsqueeze",
       [](const Tensor& x, const A& a, bool) { return x.unsqueeze(a.Int(0)); }},
      {"transpose",
       [](const Tensor& x, const A& a, bool) { return x.transpose(a.Int(0), a.Int(1)); }},
      {"select",
       [](const Tensor& x, const A& a, bool) { return x.select(a.Int(0), a.Int(1)); }},
      {"mean", [](const Tensor& x, const A& a, bool) { return x.mean(a.Ints()); }},
      {"max_pool2d",
       [](const Tensor& x, const A& a, bool) {
         const int64_t kernel = a.Int(0), stride = a.Int(1, kernel), padding = a.Int(2);
         return torch::max_pool2d(x, {kernel, kernel}, {stride, stride},
                                  {padding, padding});
       }},
      {"avg_pool2d",
       [](const Tensor& x, const A& a, bool) {
         const int64_t kernel = a.Int(0), stride = a.Int(1, kernel), padding = a.Int(2);
         return torch::avg_pool2d(x, {kernel, kernel}, {stride, stride},
                                  {padding, padding});
       }},
      {"adaptive_avg_pool2d",
       [](const Tensor& x, const A& a, bool) {
         return torch::adaptive_avg_pool2d(x, {a.Int(0), a.Int(1, a.Int(0))});
       }},
  };
  return *functions;
}

// Runs one step on the current value `x`. `input` is the input of the module.
Tensor Apply(const ForwardStep& step, const TensorFunction& child, const Tensor& x,
             const Tensor& input, bool training) {
  if (!step.child.empty()) return child(x);
  if (step.function == "add") return x + (child ? child(input) : input);
  if (step.function == "mul") return x * (child ? child(input) : input);
  return Functions().at(step.function)(x, StepArguments(step), training);
}

}  // namespace forward_steps

torch::Tensor BuiltModule::forward(const torch::Tensor& input) {
  torch::Tensor x = input;
  for (const auto& [step, child] : steps_) {
    x = forward_steps::Apply(step, child, x, input, is_training());
  }
  return x;
}

}  // namespace modelstore::torch_internal
