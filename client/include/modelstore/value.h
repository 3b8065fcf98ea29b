// Value: a Python value as torch.save({...}) can store it, such as a number, string, list
// or dict. Tensors are referred to by key. The C++ form of modelstore.v1.Value.
//
//   Value hyper = Value::Dict({{"lr", 0.1}, {"betas", Value::Tuple({0.9, 0.999})}});
//   absl::StatusOr<double> lr = hyper.GetDouble("lr");
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace modelstore {

// A value type: copying copies the whole tree. Equality is deep; two NaN are equal if
// their bits are equal. A save refuses values that Python cannot represent, such as a
// dict with equal keys, and more than 32 levels; modelstore.v1.Value lists all
// conditions.
class Value {
 public:
  using Entries = std::vector<std::pair<Value, Value>>;
  struct Complex {
    double real = 0, imag = 0;
  };
  // An integer that does not fit in int64_t, in decimal.
  struct BigInt {
    std::string decimal;
  };
  struct Bytes {
    std::string data;
  };
  struct Sequence {
    enum class Kind : uint8_t { kList, kTuple, kSet, kFrozenSet };
    Kind kind = Kind::kList;
    std::vector<Value> values;
  };
  // A dict, in insertion order. Keys are hashable Python values, including tuples.
  struct DictEntries {
    Entries entries;
    bool ordered = false;  // a collections.OrderedDict
    // Attributes of an OrderedDict, such as the `_metadata` of a state dict.
    Entries attributes = {};
  };
  // A class, function or constant, by module and name: {`torch`, `strided`}.
  struct Global {
    std::string module, qualified_name;
  };
  // An object of any other type, such as a Counter, a named tuple or a numpy array, as
  // Python's __reduce_ex__ describes it. modelstore.v1.ObjectValue defines the fields.
  struct Object {
    enum class Construction : uint8_t { kCall, kNew };
    Global type;
    Construction construction = Construction::kCall;
    std::vector<Value> args = {};
    Entries keywords = {};
    Entries attributes = {};
    std::vector<Value> state = {};  // empty or one element
    std::vector<Value> items = {};
    Entries entries = {};
  };
  struct DTypeName {
    std::string name;
  };  // torch.float32 is `float32`
  struct DeviceName {
    std::string name;
  };  // `cuda:0`
  struct Size {
    std::vector<int64_t> sizes;
  };  // torch.Size
  // A reference to a tensor of the same section, by key.
  struct TensorKey {
    std::string key;
  };
  using Variant = std::variant<std::monostate, bool, int64_t, BigInt, double, Complex,
                               std::string, Bytes, Sequence, DictEntries, DTypeName,
                               DeviceName, Size, TensorKey, Global, Object>;
  template <typename T>
  static constexpr bool IsCharacter =
      std::same_as<T, char> || std::same_as<T, wchar_t> || std::same_as<T, char8_t> ||
      std::same_as<T, char16_t> || std::same_as<T, char32_t>;
  template <typename T>
  static constexpr bool IsStruct =
      std::same_as<T, BigInt> || std::same_as<T, Complex> || std::same_as<T, Bytes> ||
      std::same_as<T, Sequence> || std::same_as<T, DictEntries> ||
      std::same_as<T, DTypeName> || std::same_as<T, DeviceName> ||
      std::same_as<T, Size> || std::same_as<T, TensorKey> || std::same_as<T, Global> ||
      std::same_as<T, Object>;

  Value() = default;  // None
  // Conversions are implicit, and exact by type: characters and pointers (other than
  // strings) do not convert.
  template <std::same_as<bool> T>
  Value(T v) : v_(v) {}
  // An integer out of the range of int64_t becomes a BigInt.
  template <std::integral T>
  requires(!IsCharacter<T> && !std::same_as<T, bool>) Value(T v) : v_(FromInteger(v)) {}
  template <std::floating_point T>
  requires(sizeof(T) <= sizeof(double)) Value(T v) : v_(double{v}) {}
  Value(const char* v) : v_(std::string(v)) {}
  Value(std::string v) : v_(std::move(v)) {}
  Value(std::string_view v) : v_(std::string(v)) {}
  // Value::Bytes{...} and the other structs above.
  template <typename T>
  requires(IsStruct<T>) Value(T v) : v_(std::move(v)) {}
  // Only Variant itself: types that merely convert to one of its alternatives, such as
  // std::atomic<int>, are rejected.
  template <std::same_as<Variant> T>
  Value(T v) : v_(std::move(v)) {}
  Value(std::nullptr_t) = delete;
  template <typename T>
  requires(IsCharacter<T>) Value(T)
  = delete;
  template <typename T>
  requires(!std::same_as<std::remove_const_t<T>, char>) Value(T*)
  = delete;

  static Value List(std::vector<Value> values = {});
  static Value Tuple(std::vector<Value> values = {});
  static Value SetOf(std::vector<Value> values = {});
  static Value FrozenSet(std::vector<Value> values = {});
  static Value Dict(Entries entries = {});
  static Value OrderedDict(Entries entries = {}, Entries attributes = {});
  static Value Tensor(std::string key) {
    return Value(Variant(TensorKey{std::move(key)}));
  }

  const Variant& variant() const { return v_; }
  Variant& variant() { return v_; }
  bool IsNull() const { return std::holds_alternative<std::monostate>(v_); }
  bool IsDict() const { return std::holds_alternative<DictEntries>(v_); }

  // Returns the value of a string key in a dict or in an object's entries; null if
  // absent. Valid until the tree is changed.
  const Value* Find(std::string_view key) const;
  // Returns an attribute of an OrderedDict or object; null if absent.
  const Value* FindAttribute(std::string_view name) const;
  // Sets a string key of a dict or of an object's entries: replaces the value, or appends
  // the key. A null value becomes a dict. Returns false, without effect, for other kinds.
  bool Set(std::string_view key, Value value);

  // Returns the value if it is of this kind, otherwise nullopt. AsDouble() also accepts
  // an integer that a double represents exactly. A bool is not a number.
  std::optional<bool> AsBool() const;
  std::optional<int64_t> AsInt() const;
  std::optional<double> AsDouble() const;
  std::optional<std::string> AsString() const;

  // Returns the value of a string key. NOT_FOUND if the key is absent; INVALID_ARGUMENT,
  // naming the key and the value found, if it is of another kind, or if this is not a
  // dict.
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  absl::StatusOr<double> GetDouble(std::string_view key) const;
  absl::StatusOr<std::string> GetString(std::string_view key) const;

  // Returns the value as text in the style of Python's repr(). Tensors are `<tensor
  // key>`, objects `module.Type(args, name=value, ...)`.
  std::string ToString() const;

  friend bool operator==(const Value& a, const Value& b);

 private:
  template <std::signed_integral T>
  static Variant FromInteger(T v) {
    return int64_t{v};
  }
  template <std::unsigned_integral T>
  static Variant FromInteger(T v) {
    if (v <= static_cast<uint64_t>(INT64_MAX)) return static_cast<int64_t>(v);
    return BigInt{std::to_string(v)};
  }

  Variant v_;
};

}  // namespace modelstore
