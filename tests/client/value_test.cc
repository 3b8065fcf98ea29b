#include "modelstore/value.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <type_traits>

#include "client/internal/rpc.h"
#include "client/internal/value_codec.h"

namespace modelstore {
namespace {

using internal::DecodeValue;
using internal::EncodeValue;

// Through the wire's bytes, not only through the message.
Value RoundTrip(const Value& value) {
  v1::Value message;
  std::vector<NamedTensor> tensors;
  const absl::Status encoded = EncodeValue("value", value, &message, &tensors);
  EXPECT_TRUE(encoded.ok()) << encoded;
  v1::Value read;
  EXPECT_TRUE(ParseMessage(message.SerializeAsString(), &read));
  absl::StatusOr<Value> decoded = DecodeValue(read);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  return decoded.ok() ? *decoded : Value("decoding failed");
}

absl::Status Encode(absl::string_view field, const Value& value) {
  v1::Value message;
  std::vector<NamedTensor> tensors;
  return EncodeValue(field, value, &message, &tensors);
}

// A state dict within a section: its `_metadata` is an attribute.
Value NestedStateDict() {
  return Value::OrderedDict(
      {{"fc.weight", Value::Tensor("net/fc.weight")}},
      {{"_metadata", Value::OrderedDict({{"", Value::Dict({{"version", 1}})},
                                         {"fc", Value::Dict({{"version", 2}})}})}});
}

// `class Config: pass` with two attributes.
Value PlainObject() {
  Value::Object object{{"__main__", "Config"}};
  object.construction = Value::Object::Construction::kNew;
  object.attributes = {{"lr", 0.1}, {"net", NestedStateDict()}};
  return Value(std::move(object));
}

Value Counter() {
  Value::Object object{{"collections", "Counter"}};
  object.entries = {{30, 1}, {80, 2}};
  return Value(std::move(object));
}

Value DefaultDict() {
  Value::Object object{{"collections", "defaultdict"}};
  object.args = {Value(Value::Global{"builtins", "list"})};
  object.entries = {{"a", Value::List({1})}};
  return Value(std::move(object));
}

Value Reduced() {
  Value::Object object{{"functools", "partial"}};
  object.args = {Value(Value::Global{"torch.optim.sgd", "SGD"})};
  object.keywords = {{"lr", 0.1}};
  object.state = {Value::Tuple({1, Value()})};
  object.items = {"item"};
  return Value(std::move(object));
}

Value EveryKind() {
  return Value::Dict({
      {"none", Value()},
      {"bool", true},
      {"int", std::numeric_limits<int64_t>::min()},
      {"big", Value(std::numeric_limits<uint64_t>::max())},
      {"huge", Value(Value::BigInt{"-123456789012345678901234567890"})},
      {"double", -0.0},
      {"inf", std::numeric_limits<double>::infinity()},
      {"complex", Value(Value::Variant(Value::Complex{1.5, -2.5}))},
      {"text", "it's \\ a\nnewline"},
      {"bytes", Value(Value::Variant(Value::Bytes{std::string("\0\xff'", 3)}))},
      {"list", Value::List({1, "two", 3.0})},
      {"tuple", Value::Tuple({0.9, 0.999})},
      {"one", Value::Tuple({1})},
      {"set", Value::SetOf({1, 2})},
      {"frozenset", Value::FrozenSet({1, 2})},
      {"no set", Value::SetOf()},
      {"net", NestedStateDict()},
      {"config", PlainObject()},
      {"milestones", Counter()},
      {"default", DefaultDict()},
      {"reduced", Reduced()},
      {"array", Value(Value::Object{.type = {"numpy", "ndarray"},
                                    .args = {Value::Tensor("array")}})},
      {"point", Value(Value::Object{.type = {"__main__", "Point"},
                                    .construction = Value::Object::Construction::kNew,
                                    .args = {1, 2.5}})},
      {"layout", Value(Value::Global{"torch", "strided"})},
      {"ellipsis", Value(Value::Global{"builtins", "Ellipsis"})},
      {"dtype", Value(Value::Variant(Value::DTypeName{"float32"}))},
      {"device", Value(Value::Variant(Value::DeviceName{"cuda:0"}))},
      {"size", Value(Value::Variant(Value::Size{{2, 3}}))},
      {"tensor", Value::Tensor("state/0/exp_avg")},
      {Value(7), "an int for a key"},
      {Value(), "None for a key"},
      {Value(1.5), "a float for a key"},
      {Value::Tuple({0, "a"}), "a tuple for a key"},
      {Value::FrozenSet(), "a frozenset for a key"},
      {"a.b/c~d", Value::Dict({{"", Value::List()}})},
  });
}

TEST(ValueTest, EveryKindSurvivesTheWire) {
  const Value value = EveryKind();
  EXPECT_EQ(RoundTrip(value), value);
  EXPECT_EQ(RoundTrip(value).ToString(), value.ToString());
}

TEST(ValueTest, NanKeepsItsBits) {
  const uint64_t bits = 0x7ff800000000beef;
  double nan;
  std::memcpy(&nan, &bits, sizeof(nan));
  const Value back = RoundTrip(Value(nan));
  EXPECT_EQ(back, Value(nan));
  EXPECT_NE(back, Value(std::nan("")));
}

TEST(ValueTest, PrintsAsPythonDoes) {
  EXPECT_EQ(EveryKind().ToString(),
            "{'none': None, 'bool': True, 'int': -9223372036854775808, "
            "'big': 18446744073709551615, 'huge': -123456789012345678901234567890, "
            "'double': -0.0, 'inf': inf, 'complex': (1.5-2.5j), "
            "'text': 'it\\'s \\\\ a\\nnewline', 'bytes': b'\\x00\\xff\\'', "
            "'list': [1, 'two', 3.0], 'tuple': (0.9, 0.999), 'one': (1,), "
            "'set': {1, 2}, 'frozenset': frozenset({1, 2}), 'no set': set(), "
            "'net': OrderedDict([('fc.weight', <tensor net/fc.weight>)], "
            "._metadata=OrderedDict([('', {'version': 1}), ('fc', {'version': 2})])), "
            "'config': __main__.Config(.lr=0.1, .net=OrderedDict([('fc.weight', "
            "<tensor net/fc.weight>)], ._metadata=OrderedDict([('', {'version': 1}), "
            "('fc', {'version': 2})]))), "
            "'milestones': collections.Counter({30: 1, 80: 2}), "
            "'default': collections.defaultdict(list, {'a': [1]}), "
            "'reduced': functools.partial(torch.optim.sgd.SGD, lr=0.1, state=(1, None), "
            "['item']), 'array': numpy.ndarray(<tensor array>), "
            "'point': __main__.Point(1, 2.5), 'layout': torch.strided, "
            "'ellipsis': Ellipsis, 'dtype': torch.float32, 'device': device('cuda:0'), "
            "'size': torch.Size([2, 3]), 'tensor': <tensor state/0/exp_avg>, "
            "7: 'an int for a key', None: 'None for a key', 1.5: 'a float for a key', "
            "(0, 'a'): 'a tuple for a key', frozenset(): 'a frozenset for a key', "
            "'a.b/c~d': {'': []}}");
}

TEST(ValueTest, IntegersBeyondSixtyFourBitsStayExact) {
  EXPECT_EQ(Value(uint64_t{5}), Value(5));
  EXPECT_EQ(Value(std::numeric_limits<uint64_t>::max()).ToString(),
            "18446744073709551615");
}

TEST(ValueTest, KindsAreNotMixedUpByEquality) {
  EXPECT_NE(Value(1), Value(1.0));
  EXPECT_NE(Value(true), Value(1));
  EXPECT_NE(Value::List({1}), Value::Tuple({1}));
  EXPECT_NE(Value("a"), Value(Value::Variant(Value::Bytes{"a"})));
}

TEST(ValueTest, DictsAreReadAndSetByKey) {
  Value dict;
  dict.Set("lr", 0.1);
  dict.Set("epoch", 3);
  dict.Set("lr", 0.2);
  EXPECT_EQ(dict, Value::Dict({{"lr", 0.2}, {"epoch", 3}}));
  EXPECT_EQ(dict.GetDouble("lr").value(), 0.2);
  EXPECT_EQ(dict.GetDouble("epoch").value(), 3.0);
  EXPECT_EQ(dict.GetInt("epoch").value(), 3);
  EXPECT_EQ(dict.Find("gone"), nullptr);
  EXPECT_EQ(Value(3).Find("lr"), nullptr);
}

TEST(ValueTest, AGetterOfAnotherKindGivesNothing) {
  EXPECT_EQ(Value("x").AsInt(), std::nullopt);
  EXPECT_EQ(Value("0.1").AsDouble(), std::nullopt);
  EXPECT_EQ(Value(true).AsDouble(), std::nullopt);
  EXPECT_EQ(Value(1.0).AsInt(), std::nullopt);
  EXPECT_EQ(Value(1).AsBool(), std::nullopt);
  EXPECT_EQ(Value().AsString(), std::nullopt);
  EXPECT_EQ(Value(true).AsBool(), true);
  EXPECT_EQ(Value("x").AsString(), "x");
}

TEST(ValueTest, AnIntegerIsADoubleOnlyWhereThatIsExact) {
  constexpr int64_t kExact = int64_t{1} << 53;
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(Value(kExact).AsDouble(), 0x1p53);
  EXPECT_EQ(Value(kExact + 1).AsDouble(), std::nullopt);
  EXPECT_EQ(Value(kMin).AsDouble(), -0x1p63);
  EXPECT_EQ(Value(std::numeric_limits<int64_t>::max()).AsDouble(), std::nullopt);
}

TEST(ValueTest, AGetterByKeyReportsWhatIsThereInstead) {
  const Value group = Value::Dict({{"lr", "0.1"}, {"nesterov", 1}, {"betas", 3}});
  EXPECT_EQ(group.GetDouble("lr").status(),
            absl::InvalidArgumentError("the value of key 'lr' is not a number: '0.1'"));
  EXPECT_EQ(group.GetBool("nesterov").status(),
            absl::InvalidArgumentError("the value of key 'nesterov' is not a bool: 1"));
  EXPECT_EQ(group.GetString("betas").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group.GetInt("momentum").status(),
            absl::NotFoundError("the dict has no key 'momentum'"));
  EXPECT_EQ(Value(3).GetInt("lr").status().code(), absl::StatusCode::kInvalidArgument);
}

// Each type of C++ means one kind of value.
TEST(ValueTest, TypesOfCppThatMeanNothingDoNotCompile) {
  static_assert(!std::is_constructible_v<Value, char>);
  static_assert(!std::is_constructible_v<Value, wchar_t>);
  static_assert(!std::is_constructible_v<Value, std::nullptr_t>);
  static_assert(!std::is_constructible_v<Value, const void*>);
  static_assert(!std::is_constructible_v<Value, int*>);
  static_assert(!std::is_constructible_v<Value, long double>);
  static_assert(!std::is_constructible_v<Value, absl::StatusCode>);
  // What converts to a number is none, however many kinds it might become.
  static_assert(!std::is_constructible_v<Value, std::atomic<int>&>);
  static_assert(!std::is_constructible_v<Value, std::reference_wrapper<int>>);
  static_assert(!std::is_constructible_v<Value, std::optional<double>>);
  static_assert(!std::is_constructible_v<Value, std::monostate>);
}

TEST(ValueTest, APathIsItsText) {
  EXPECT_EQ(Value(std::filesystem::path("a/b")), Value("a/b"));
}

TEST(ValueTest, EveryTypeOfNumberKeepsItsValue) {
  EXPECT_EQ(Value(0), Value(int64_t{0}));
  EXPECT_EQ(Value(short{-3}), Value(-3));
  EXPECT_EQ(Value(uint8_t{200}), Value(200));
  EXPECT_EQ(Value(3u), Value(3));
  EXPECT_EQ(Value(18446744073709551615ull).ToString(), "18446744073709551615");
  EXPECT_EQ(Value(-9223372036854775807ll), Value(-std::numeric_limits<int64_t>::max()));
  EXPECT_EQ(Value(0.5f), Value(0.5));
  EXPECT_TRUE(std::holds_alternative<bool>(Value(true).variant()));
  EXPECT_TRUE(std::holds_alternative<std::string>(Value("text").variant()));
}

Value Nested(int levels) {
  Value value(1);
  for (int i = 1; i < levels; ++i) value = Value::Dict({{"k", value}});
  return value;
}

TEST(ValueTest, TreesAsDeepAsTheLimitSurvive) {
  EXPECT_EQ(RoundTrip(Nested(32)), Nested(32));
}

TEST(ValueTest, DeeperTreesAreRefusedByName) {
  for (const int levels : {33, 300}) {
    const absl::Status s = Encode("section extra", Nested(levels));
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(s.message().find("section extra"), absl::string_view::npos) << s;
  }
}

TEST(ValueTest, WhatPythonCouldNotGiveBackIsRefusedByItsPlace) {
  EXPECT_EQ(
      Encode("section \"x\"", Value::Dict({{"a", Value::SetOf({1, true})}})).message(),
      "section \"x\": value a/1: True is equal to an element of a set before it");
  for (const Value& value :
       {Value::Dict({{Value::List(), 1}}), Value::Dict({{"a", 1}, {"a", 2}}),
        Value(Value::DTypeName{"float33"}), Value(Value::DeviceName{"gpu"}),
        Value("\xff"), Value::Tensor(""), Value(Value::Global{"", "x"}),
        Value(Value::Object{.type = {"m", "C"}, .state = {1, 2}}),
        Value(Value::BigInt{std::string(5000, '1')}), Value(Value::BigInt{"12a"})}) {
    EXPECT_EQ(Encode("v", value).code(), absl::StatusCode::kInvalidArgument)
        << value.ToString().substr(0, 80);
  }
}

TEST(ValueTest, EntriesAndAttributesOfObjectsAreReadByKey) {
  EXPECT_EQ(DefaultDict().Find("a")->ToString(), "[1]");
  EXPECT_EQ(PlainObject().FindAttribute("lr")->AsDouble(), 0.1);
  EXPECT_EQ(PlainObject().FindAttribute("gone"), nullptr);
  const Value nested = NestedStateDict();
  ASSERT_NE(nested.FindAttribute("_metadata"), nullptr);
  EXPECT_EQ(nested.FindAttribute("_metadata")->Find("fc")->GetInt("version").value(), 2);
  Value counter = Counter();
  EXPECT_TRUE(counter.Set("x", 3));
  EXPECT_EQ(counter.GetInt("x").value(), 3);
  Value list = Value::List();
  EXPECT_FALSE(list.Set("x", 3));
  EXPECT_EQ(list, Value::List());
}

TEST(ValueTest, KindsOfDictsAndObjectsAreNotMixedUpByEquality) {
  EXPECT_NE(Value::Dict(), Value::OrderedDict());
  EXPECT_NE(Value::OrderedDict(), Value::OrderedDict({}, {{"a", 1}}));
  EXPECT_NE(Value::SetOf(), Value::FrozenSet());
  Value::Object object = std::get<Value::Object>(PlainObject().variant());
  object.construction = Value::Object::Construction::kCall;
  EXPECT_NE(Value(object), PlainObject());
}

TEST(ValueTest, AKindOfANewerServerIsAnErrorAndNoNull) {
  EXPECT_EQ(DecodeValue(v1::Value()).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace modelstore
