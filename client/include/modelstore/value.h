// Value: anything that the dict given to torch.save({...}) can hold, apart from
// the tensors themselves, which it names. The C++ form of modelstore.v1.Value.
//
//   Value hyper = Value::Dict({{"lr", 0.1}, {"betas", Value::Tuple({0.9, 0.999})}});
//   double lr = hyper.Find("lr")->AsDouble();
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace modelstore {

// A value type: copying copies the tree. Equality is deep; NaN equals NaN when
// the bits agree. Trees deeper than 64 levels are refused when saved.
class Value {
 public:
  struct Complex { double real = 0, imag = 0; };
  // An integer beyond 64 bits, in decimal.
  struct BigInt { std::string decimal; };
  struct Bytes { std::string data; };
  struct Sequence {
    enum class Kind : uint8_t { kList, kTuple, kSet };
    Kind kind = Kind::kList;
    std::vector<Value> values;
  };
  // In insertion order; keys are null, bool, int, double, string or bytes.
  struct DictEntries { std::vector<std::pair<Value, Value>> entries; };
  struct DTypeName { std::string name; };     // torch.float32 is `float32`
  struct DeviceName { std::string name; };    // `cuda:0`
  struct Size { std::vector<int64_t> sizes; };  // torch.Size
  // The key, within the same section, of a tensor saved beside the tree.
  struct TensorKey { std::string key; };
  using Variant =
      std::variant<std::monostate, bool, int64_t, BigInt, double, Complex, std::string,
                   Bytes, Sequence, DictEntries, DTypeName, DeviceName, Size, TensorKey>;

  Value() = default;  // None
  Value(bool v) : v_(v) {}
  Value(int v) : v_(int64_t{v}) {}
  Value(int64_t v) : v_(v) {}
  Value(uint64_t v);  // BigInt beyond int64
  Value(double v) : v_(v) {}
  Value(const char* v) : v_(std::string(v)) {}
  Value(std::string v) : v_(std::move(v)) {}
  Value(std::string_view v) : v_(std::string(v)) {}
  Value(Variant v) : v_(std::move(v)) {}

  static Value List(std::vector<Value> values = {});
  static Value Tuple(std::vector<Value> values = {});
  static Value Dict(std::vector<std::pair<Value, Value>> entries = {});
  static Value Tensor(std::string key) { return Value(Variant(TensorKey{std::move(key)})); }

  const Variant& variant() const { return v_; }
  Variant& variant() { return v_; }
  bool IsNull() const { return std::holds_alternative<std::monostate>(v_); }
  bool IsDict() const { return std::holds_alternative<DictEntries>(v_); }

  // The value under a string key of a dict; null pointer if there is none or
  // this is no dict.
  const Value* Find(std::string_view key) const;
  // Sets a string key of a dict, in place or at the end. Makes null a dict.
  void Set(std::string_view key, Value value);

  // What the value holds, or `otherwise`. AsDouble takes integers too.
  double AsDouble(double otherwise = 0) const;
  int64_t AsInt(int64_t otherwise = 0) const;
  bool AsBool(bool otherwise = false) const;
  std::string AsString(std::string otherwise = "") const;

  // As Python's repr() would print it, tensors as `<tensor key>`.
  std::string ToString() const;

  friend bool operator==(const Value& a, const Value& b);

 private:
  Variant v_;
};

}  // namespace modelstore
