// One table per optimizer class: the correspondence between LibTorch's options and state
// and Python's state_dict.
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

// One field of the state of a parameter: a number, a tensor, or a list of tensors.
using StateField = std::variant<Value, torch::Tensor, std::vector<torch::Tensor>>;
// Fields with Python's names, in Python's order.
using OptimizerState = std::vector<std::pair<std::string, StateField>>;

// Form of a state field.
enum class StateKind : uint8_t {
  kNumber,         // a number, or a tensor of one element
  kScalarTensor,   // a tensor of one element, or a number
  kLikeParameter,  // a tensor of the parameter's shape
  kFlat,           // all elements of the group's parameters, concatenated
  kFlatList,       // a list of kFlat
  kScalarList,     // a list of kScalarTensor
  kScratch,        // recomputed by the optimizer: neither saved nor loaded
};

// Returns the number as Python computes with it: a bool is 0 or 1. Nullopt if it is not a
// number.
std::optional<double> NumberOf(const Value& value);

// The loaded state of one parameter. A field that was not stored is 0, an undefined
// tensor or an empty list.
struct LoadedState {
  std::map<std::string, Value> numbers;
  std::map<std::string, std::vector<torch::Tensor>> tensors;

  double Double(const std::string& name) const;
  int64_t Integer(const std::string& name) const;
  torch::Tensor Tensor(const std::string& name) const;
  std::vector<torch::Tensor> Tensors(const std::string& name) const;
};

// Conversion in both directions for one class. Immutable; one static instance per class.
struct OptimizerTable {
  std::string name;  // `SGD`
  // Options that LibTorch lacks, with the only value that it behaves as. They are saved,
  // because Python requires them.
  std::vector<std::pair<std::string, Value>> python_only;
  // Those of python_only that do not change results; a load accepts any value.
  std::vector<std::string> indifferent;
  // Options by which later versions of PyTorch distinguish the class from one with the
  // same state, with this class's values. Read, not written.
  std::vector<std::pair<std::string, Value>> markers;
  std::vector<std::pair<std::string, StateKind>> state;
  // The state belongs to the whole group and is stored with its first parameter, so it
  // depends on the order of the parameters.
  bool of_group = false;

  // Options as Python's dict has them.
  std::function<std::vector<std::pair<std::string, Value>>(
      const torch::optim::OptimizerOptions&)>
      read_options;
  // Requires a checked dict: it has every option of read_options, in the right type.
  std::function<std::unique_ptr<torch::optim::OptimizerOptions>(const Value& group)>
      make_options;
  // Names of the state fields that an optimizer with these options needs after its first
  // step.
  std::function<std::vector<std::string>(const Value& group)> required;
  // Omits undefined tensors.
  std::function<OptimizerState(const torch::optim::OptimizerParamState&)> read_state;
  std::function<std::unique_ptr<torch::optim::OptimizerParamState>(const LoadedState&)>
      make_state;
};

// UNIMPLEMENTED for an optimizer that has no table.
absl::StatusOr<const OptimizerTable*> TableOf(const torch::optim::Optimizer& optimizer);

// LibTorch's key for the state of `parameter`: the address of its TensorImpl, as text in
// LibTorch 1.13 and as a pointer in 2.
using StateKeyType =
    std::decay_t<decltype(std::declval<torch::optim::Optimizer&>().state())>::key_type;
StateKeyType StateKey(const torch::Tensor& parameter);

}  // namespace modelstore::torch_internal
