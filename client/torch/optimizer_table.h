// What differs from optimizer to optimizer, as one table each: how LibTorch's
// options and state correspond to Python's state_dict.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// One entry of the state of a parameter: a number, a tensor, or a list of them.
using StateField = std::variant<Value, torch::Tensor, std::vector<torch::Tensor>>;
// Under Python's names, in Python's order.
using OptimizerState = std::vector<std::pair<std::string, StateField>>;

enum class StateKind : uint8_t {
  kNumber,         // a number, or a tensor of one element
  kScalarTensor,   // a tensor of one element, or a number
  kLikeParameter,  // a tensor of the parameter's shape
  // One after another the elements of every parameter of the group.
  kFlat,
  kFlatList,
  kScalarList,
  kScratch,  // made anew by the optimizer: neither saved nor loaded
};

// A number as Python computes with it: a bool is 0 or 1. Nothing if it is none.
std::optional<double> NumberOf(const Value& value);

// What was loaded of a state. A field that was not there reads as 0, an undefined
// tensor, no tensors.
struct LoadedState {
  std::map<std::string, Value> numbers;
  std::map<std::string, std::vector<torch::Tensor>> tensors;

  double Double(const std::string& name) const;
  int64_t Integer(const std::string& name) const;
  torch::Tensor Tensor(const std::string& name) const;
  std::vector<torch::Tensor> Tensors(const std::string& name) const;
};

struct OptimizerTable {
  std::string name;  // `SGD`
  // Options that LibTorch lacks, with the only value it can act upon; Python
  // needs them to be there.
  std::vector<std::pair<std::string, Value>> python_only;
  // Those of them that change nothing in the numbers, so that any value is taken.
  std::vector<std::string> indifferent;
  // Options by which later versions of PyTorch tell it from a class with the same state,
  // with its own values. Not written.
  std::vector<std::pair<std::string, Value>> markers;
  std::vector<std::pair<std::string, StateKind>> state;
  // The state is the group's and hangs on its first parameter, so that the order of
  // the parameters is a part of it.
  bool of_group = false;

  std::function<std::vector<std::pair<std::string, Value>>(
      const torch::optim::OptimizerOptions&)>
      read_options;
  // Every option that read_options gives is in the dict, and is of its kind.
  std::function<std::unique_ptr<torch::optim::OptimizerOptions>(const Value& group)>
      make_options;
  // Names of the state that an optimizer with these options cannot go on without,
  // once it has stepped.
  std::function<std::vector<std::string>(const Value& group)> required;
  // Leaves out what is undefined.
  std::function<OptimizerState(const torch::optim::OptimizerParamState&)> read_state;
  std::function<std::unique_ptr<torch::optim::OptimizerParamState>(const LoadedState&)>
      make_state;
};

// UNIMPLEMENTED for an optimizer that has no table.
absl::StatusOr<const OptimizerTable*> TableOf(const torch::optim::Optimizer& optimizer);

// The optimizer's key for the state of `parameter`: its address, as text in LibTorch
// 1.13 and as such in 2.
using StateKeyType =
    std::decay_t<decltype(std::declval<torch::optim::Optimizer&>().state())>::key_type;
StateKeyType StateKey(const torch::Tensor& parameter);

}  // namespace modelstore::torch_internal
