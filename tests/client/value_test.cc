#include "modelstore/value.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
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
  EXPECT_TRUE(EncodeValue("value", value, &message).ok());
  v1::Value read;
  EXPECT_TRUE(internal::Parse(message.SerializeAsString(), &read));
  absl::StatusOr<Value> decoded = DecodeValue(read);
  EXPECT_TRUE(decoded.ok()) << decoded.status();
  return decoded.ok() ? *decoded : Value("decoding failed");
}

Value Sequence(Value::Sequence::Kind kind, std::vector<Value> values) {
  return Value(Value::Variant(Value::Sequence{kind, std::move(values)}));
}

Value EveryKind() {
  return Value::Dict({
      {"none", Value()},
      {"bool", true},
      {"int", std::numeric_limits<int64_t>::min()},
      {"big", Value(std::numeric_limits<uint64_t>::max())},
      {"huge", Value(Value::Variant(Value::BigInt{"-123456789012345678901234567890"}))},
      {"double", -0.0},
      {"inf", std::numeric_limits<double>::infinity()},
      {"complex", Value(Value::Variant(Value::Complex{1.5, -2.5}))},
      {"text", "it's \\ a\nnewline"},
      {"bytes", Value(Value::Variant(Value::Bytes{std::string("\0\xff'", 3)}))},
      {"list", Value::List({1, "two", 3.0})},
      {"tuple", Value::Tuple({0.9, 0.999})},
      {"one", Value::Tuple({1})},
      {"set", Sequence(Value::Sequence::Kind::kSet, {1, 2})},
      {"dtype", Value(Value::Variant(Value::DTypeName{"float32"}))},
      {"device", Value(Value::Variant(Value::DeviceName{"cuda:0"}))},
      {"size", Value(Value::Variant(Value::Size{{2, 3}}))},
      {"tensor", Value::Tensor("state/0/exp_avg")},
      {Value(7), "an int for a key"},
      {Value(), "None for a key"},
      {Value(1.5), "a float for a key"},
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
            "'set': {1, 2}, 'dtype': torch.float32, 'device': device('cuda:0'), "
            "'size': torch.Size([2, 3]), 'tensor': <tensor state/0/exp_avg>, "
            "7: 'an int for a key', None: 'None for a key', 1.5: 'a float for a key', "
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

TEST(ValueTest, AGetterByKeyTellsWhatIsThereInstead) {
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
  EXPECT_EQ(RoundTrip(Nested(64)), Nested(64));
}

TEST(ValueTest, DeeperTreesAreRefusedByName) {
  v1::Value message;
  const absl::Status s = EncodeValue("section extra", Nested(65), &message);
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find("section extra"), absl::string_view::npos) << s;
}

TEST(ValueTest, KeysThatAreNoScalarsAreRefused) {
  v1::Value message;
  EXPECT_EQ(EncodeValue("v", Value::Dict({{Value::List(), 1}}), &message).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ValueTest, BigIntsThatAreNoIntegersAreRefused) {
  v1::Value message;
  for (const char* text : {"", "-", "1.5", "0x10", "12a"}) {
    const Value value(Value::Variant(Value::BigInt{text}));
    EXPECT_EQ(EncodeValue("v", value, &message).code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ValueTest, AKindOfANewerServerIsAnErrorAndNoNull) {
  EXPECT_EQ(DecodeValue(v1::Value()).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace modelstore
