// Value: anything that the dict given to torch.save({...}) can hold, apart from
// the tensors themselves, which it names. The C++ form of modelstore.v1.Value.
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

// A value type: copying copies the tree. Equality is deep; NaN equals NaN when
// the bits agree. What Python could not give back is refused when it is saved, such
// as equal keys in a dict or more than 32 levels: modelstore.v1.Value lists it.
class Value {
 public:
  using Entries = std::vector<std::pair<Value, Value>>;
  struct Complex {
    double real = 0, imag = 0;
  };
  // An integer beyond 64 bits, in decimal.
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
  // In insertion order; keys are what Python can hash, also tuples.
  struct DictEntries {
    Entries entries;
    bool ordered = false;  // a collections.OrderedDict
    // Of an OrderedDict, such as the `_metadata` of a state dict.
    Entries attributes = {};
  };
  // A class, function or constant: `collections` `OrderedDict`, `torch` `strided`.
  struct Global {
    std::string module, qualified_name;
  };
  // An object of a type that has no kind of its own, such as a Counter, a named
  // tuple or a numpy array: modelstore.v1.ObjectValue tells what stands where.
  struct Object {
    enum class Construction : uint8_t { kCall, kNew };
    Global type;
    Construction construction = Construction::kCall;
    std::vector<Value> args = {};
    Entries keywords = {};
    Entries attributes = {};
    std::vector<Value> state = {};  // none or one
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
  // The key, within the same section, of a tensor saved beside the tree.
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
  // Each type of C++ has one meaning; a character and a pointer have none.
  template <std::same_as<bool> T>
  Value(T v) : v_(v) {}
  // Beyond int64_t it becomes a BigInt.
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
  // Itself alone: a type that converts to one of its kinds, such as std::atomic<int>, has
  // no meaning of its own.
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

  // The value under a string key of a dict, or of an object's entries; null pointer
  // if there is none.
  const Value* Find(std::string_view key) const;
  // The attribute of an OrderedDict or object; null pointer if there is none.
  const Value* FindAttribute(std::string_view name) const;
  // Sets a string key of a dict or of an object's entries, in place or at the end.
  // Makes null a dict. Returns false, and does nothing, for any other kind.
  bool Set(std::string_view key, Value value);

  // What the value holds; nothing if it is of another kind. AsDouble() takes an
  // integer that a double holds exactly; a bool is no number.
  std::optional<bool> AsBool() const;
  std::optional<int64_t> AsInt() const;
  std::optional<double> AsDouble() const;
  std::optional<std::string> AsString() const;

  // The same of the value under a string key: INVALID_ARGUMENT naming the key and
  // what is there if it is of another kind, NOT_FOUND if nothing is.
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  absl::StatusOr<double> GetDouble(std::string_view key) const;
  absl::StatusOr<std::string> GetString(std::string_view key) const;

  // As Python's repr() would print it, tensors as `<tensor key>`, objects as
  // `module.Type(args, name=value, ...)`.
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
