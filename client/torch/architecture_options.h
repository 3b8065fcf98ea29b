// Converts between LibTorch's options and the arguments of a stored module.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "proto/contract/architecture/types.h"
#include "proto/contract/architecture/value.h"

namespace modelstore::torch_internal::leaves {

namespace nn = torch::nn;

// V() converts an option of a live module to a value.

inline v1::Value V(bool b) { return BoolValue(b); }
inline v1::Value V(int64_t i) { return IntValue(i); }
inline v1::Value V(double d) { return FloatValue(d); }
inline v1::Value V(const std::string& s) { return StringValue(s); }
inline v1::Value V(const std::vector<int64_t>& v) { return TupleValue(v); }
inline v1::Value V(const std::vector<double>& v) {
  v1::Value tuple;
  tuple.mutable_tuple_value();
  for (const double d : v) *tuple.mutable_tuple_value()->add_values() = FloatValue(d);
  return tuple;
}

// Any optional type: LibTorch uses c10::optional or std::optional, depending on its
// version.
template <typename T>
requires requires(const T& o) { o.has_value(); }
inline v1::Value V(const T& o) { return o.has_value() ? V(*o) : NoneValue(); }

// LibTorch does not keep whether (2, 2) or 2 was written; equal elements become one
// number, as PyTorch's users usually write it.
template <size_t D>
inline v1::Value V(const torch::ExpandingArray<D>& array) {
  const bool equal = std::equal(array->begin() + 1, array->end(), array->begin());
  return equal ? IntValue(array->front())
               : V(std::vector<int64_t>(array->begin(), array->end()));
}

// One element is a number that applies to all dimensions.
template <typename T>
v1::Value ScalarOrList(const std::vector<T>& values) {
  return values.size() == 1 ? V(values.front()) : V(values);
}

template <size_t D>
v1::Value Tuple(const torch::ExpandingArray<D>& array) {
  return TupleValue(*array);
}

template <size_t D>
v1::Value Tuple(const torch::ExpandingArrayWithOptionalElem<D>& array) {
  v1::Value tuple;
  for (const auto& element : *array)
    *tuple.mutable_tuple_value()->add_values() = V(element);
  return tuple;
}

// Returns an enumerator as Python's string: kReflect is 'reflect', kReLU is 'relu'.
template <typename Variant>
v1::Value Word(const Variant& variant) {
  std::string name = torch::enumtype::get_enum_name(variant).substr(1);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(tolower(c)); });
  return StringValue(name);
}

// Reads the arguments of a stored module by name. A value that LibTorch cannot represent
// (None instead of a number) returns a placeholder and sets unfit(); the module is then
// not built.
class Arguments {
 public:
  explicit Arguments(const ModuleTree& node) : node_(node) {}

  int64_t Int(const char* name) const { return Or(AsInt(At(name)), int64_t{0}); }
  double Number(const char* name) const { return Or(AsNumber(At(name)), 0.0); }
  bool Flag(const char* name) const { return FlagOf(node_, name); }
  bool None(const char* name) const { return IsNone(At(name)); }
  std::string Text(const char* name) const { return At(name).string_value(); }
  std::vector<int64_t> Ints(const char* name) const {
    if (const auto one = AsInt(At(name))) return {*one};
    return Or(AsInts(At(name)), std::vector<int64_t>());
  }

  std::vector<double> Numbers(const char* name) const {
    if (const auto one = AsNumber(At(name))) return {*one};
    std::vector<double> numbers;
    for (const v1::Value& part : At(name).tuple_value().values()) {
      numbers.push_back(Or(AsNumber(part), 1.0));
    }
    return numbers;
  }

  // One size for all dimensions, or one for each.
  template <size_t D>
  torch::ExpandingArray<D> Sizes(const char* name) const {
    const std::vector<int64_t> sizes = Ints(name);
    if (sizes.size() == 1) return torch::ExpandingArray<D>(sizes[0]);
    if (sizes.size() == D) return torch::ExpandingArray<D>(sizes);
    unfit_ = true;
    return torch::ExpandingArray<D>(1);
  }

  // Output sizes of an adaptive pool; elements may be None.
  template <typename Array>
  Array OutputSizes(const char* name) const {
    if (const auto one = AsInt(At(name))) return Array(*one);
    Array array(0);
    size_t i = 0;
    for (const v1::Value& part : At(name).tuple_value().values()) {
      if (i == array->size()) break;
      const std::optional<int64_t> size = AsInt(part);
      if constexpr (requires { array->at(0).has_value(); }) {
        if (!size) {
          array->at(i++) = std::decay_t<decltype(array->at(0))>();
          continue;
        }
      }
      array->at(i++) = Or(size, int64_t{0});
    }
    return array;
  }

  // Marks the arguments as unfit.
  void Refuse() const { unfit_ = true; }
  bool unfit() const { return unfit_; }

 private:
  const v1::Value& At(const char* name) const {
    static const auto* const none = new v1::Value(NoneValue());
    const v1::Value* value = FindArgument(node_, name);
    return value != nullptr ? *value : *none;
  }

  template <typename T>
  T Or(const std::optional<T>& value, T otherwise) const {
    if (!value) unfit_ = true;
    return value.value_or(otherwise);
  }

  const ModuleTree& node_;
  mutable bool unfit_ = false;
};

}  // namespace modelstore::torch_internal::leaves
