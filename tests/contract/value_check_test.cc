// Values that Python could not give back are refused, by their place.
#include "proto/contract/value_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/value.h"
#include "proto/contract/limits.h"
#include "proto/contract/torch_names.h"
#include "proto/contract/value_equality.h"

namespace modelstore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Value Big(std::string digits) {
  v1::Value value;
  value.set_big_int_value(std::move(digits));
  return value;
}

v1::Value Bytes(std::string bytes) {
  v1::Value value;
  value.set_bytes_value(std::move(bytes));
  return value;
}

v1::Value Tuple(std::vector<v1::Value> values) {
  v1::Value tuple;
  tuple.mutable_tuple_value();
  for (v1::Value& v : values) *tuple.mutable_tuple_value()->add_values() = std::move(v);
  return tuple;
}

v1::Value Frozen(std::vector<v1::Value> values) {
  v1::Value set;
  *set.mutable_frozenset_value() = Tuple(std::move(values)).tuple_value();
  return set;
}

v1::Value List(std::vector<v1::Value> values) {
  v1::Value list;
  *list.mutable_list_value() = Tuple(std::move(values)).tuple_value();
  return list;
}

v1::Value Complex(double real, double imag) {
  v1::Value value;
  value.mutable_complex_value()->set_real(real);
  value.mutable_complex_value()->set_imag(imag);
  return value;
}

v1::Value Size(std::vector<int64_t> sizes) {
  v1::Value value;
  value.mutable_size_value()->mutable_sizes()->Add(sizes.begin(), sizes.end());
  return value;
}

v1::Value Global(const char* module, const char* name) {
  v1::Value value;
  value.mutable_global_value()->set_module(module);
  value.mutable_global_value()->set_qualified_name(name);
  return value;
}

v1::Value Object(const char* module, const char* name, std::vector<v1::Value> args = {}) {
  v1::Value value;
  *value.mutable_object_value()->mutable_type() = Global(module, name).global_value();
  for (v1::Value& v : args) *value.mutable_object_value()->add_args() = std::move(v);
  return value;
}

v1::Value Tensor(const std::string& key) {
  v1::Value value;
  value.set_tensor_value(key);
  return value;
}

v1::Value Dict(std::vector<std::pair<v1::Value, v1::Value>> entries) {
  v1::Value dict;
  dict.mutable_dict_value();
  for (auto& [key, value] : entries) {
    auto* entry = dict.mutable_dict_value()->add_entries();
    *entry->mutable_key() = std::move(key);
    *entry->mutable_value() = std::move(value);
  }
  return dict;
}

absl::Status Check(const v1::Value& value) {
  std::vector<NamedTensor> tensors;
  return CheckValue("f", "value", value, kMaxValueDepth, &tensors);
}

std::string Refusal(const v1::Value& value) {
  const absl::Status status = Check(value);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << PrintValue(value);
  return std::string(status.message());
}

TEST(ValueCheckTest, TreesAreAtMost32LevelsDeepKeysIncluded) {
  v1::Value value = IntValue(1), key = IntValue(1);
  for (int i = 1; i < kMaxValueDepth; ++i) {
    value = Dict({{StringValue("k"), value}});
    key = Tuple({key});
  }
  EXPECT_TRUE(Check(value).ok()) << Check(value);
  EXPECT_TRUE(Check(key).ok()) << Check(key);
  EXPECT_THAT(Refusal(List({value})), HasSubstr("f: value 0/k/k/"));
  EXPECT_THAT(Refusal(List({value})), HasSubstr("more than 32 levels deep"));
  EXPECT_THAT(Refusal(Dict({{key, value}})), HasSubstr("more than 32 levels deep"));
}

TEST(ValueCheckTest, AValueWithoutAKindIsRefusedByItsPlace) {
  EXPECT_EQ(Refusal(v1::Value()),
            "f: value: a value has no kind: use null_value for None");
  const v1::Value tree = Dict({{StringValue("a/b"), List({IntValue(1), v1::Value()})}});
  EXPECT_THAT(Refusal(tree), HasSubstr("f: value a~1b/1: a value has no kind"));
}

TEST(ValueCheckTest, KeysThatPythonHoldsEqualAreRefused) {
  const std::vector<std::vector<v1::Value>> equal = {
      {IntValue(1), BoolValue(true), FloatValue(1), Complex(1, 0), Big("1"), Big("01"),
       Object("numpy", "int64", {IntValue(1)})},
      {IntValue(0), BoolValue(false), FloatValue(-0.0), Big("-0")},
      {Big("18446744073709551616"), FloatValue(0x1p64)},
      {StringValue("a"), StringValue("a")},
      {Bytes("a"), Bytes("a")},
      {NoneValue(), NoneValue()},
      {Tuple({IntValue(1), IntValue(2)}), Tuple({FloatValue(1), IntValue(2)}),
       Size({1, 2})},
      {Frozen({IntValue(1), IntValue(2)}), Frozen({IntValue(2), BoolValue(true)})},
      {FloatValue(INFINITY), Complex(INFINITY, 0)},
      {Global("torch", "strided"), Global("torch", "strided")},
      {Object("m", "Color", {IntValue(1)}), Object("m", "Color", {FloatValue(1)})}};
  for (const auto& keys : equal) {
    for (size_t i = 1; i < keys.size(); ++i) {
      const v1::Value dict = Dict({{keys[0], NoneValue()}, {keys[i], NoneValue()}});
      EXPECT_THAT(Refusal(dict), HasSubstr("is equal to a key of a dict before it"));
      EXPECT_THAT(Refusal(Frozen({keys[0], keys[i]})),
                  HasSubstr("is equal to an element of a set before it"));
    }
  }
}

TEST(ValueCheckTest, KeysThatPythonReportsApartAreTaken) {
  const v1::Value keys = Frozen({IntValue(1),
                                 StringValue("1"),
                                 Bytes("1"),
                                 FloatValue(1.5),
                                 Complex(1, 1),
                                 NoneValue(),
                                 IntValue(0),
                                 Tuple({}),
                                 Tuple({IntValue(1)}),
                                 Tuple({Tuple({IntValue(1)})}),
                                 Tuple({StringValue("a"), StringValue("bc")}),
                                 Tuple({StringValue("ab"), StringValue("c")}),
                                 Frozen({}),
                                 Frozen({IntValue(1)}),
                                 FloatValue(NAN),
                                 FloatValue(NAN),
                                 FloatValue(INFINITY),
                                 FloatValue(-INFINITY),
                                 Big("36893488147419103233"),
                                 FloatValue(0x1p65),
                                 Global("torch", "strided"),
                                 Global("torch.strided", ""),
                                 Object("m", "Color", {IntValue(1)}),
                                 Object("m", "Shape", {IntValue(1)})});
  // The one above that is no name.
  v1::Value valid = keys;
  valid.mutable_frozenset_value()
      ->mutable_values(21)
      ->mutable_global_value()
      ->set_qualified_name("x");
  EXPECT_TRUE(Check(valid).ok()) << Check(valid);
  EXPECT_THAT(Refusal(keys), HasSubstr("qualified_name must be 1 to 1024 bytes"));
}

TEST(ValueCheckTest, WhatHasNoHashIsNoKeyAndNoElementOfASet) {
  v1::Value set;
  *set.mutable_set_value() = Tuple({IntValue(1)}).tuple_value();
  v1::Value counter = Object("collections", "Counter");
  const std::pair<v1::Value, std::string> cases[] = {
      {List({}), "a list"},
      {Dict({}), "a dict"},
      {set, "a set"},
      {Tensor("w"), "a tensor"},
      {Tuple({IntValue(1), List({})}), "a list"},
      {Frozen({Tuple({set})}), "a set"},
      {counter, "an object of collections.Counter"},
      {Object("numpy", "ndarray", {Tensor("w")}), "an object of numpy.ndarray"}};
  for (const auto& [value, name] : cases) {
    EXPECT_THAT(Refusal(Dict({{value, IntValue(1)}})), HasSubstr(name + " cannot be"));
    v1::Value of;
    *of.mutable_set_value() = Tuple({value}).tuple_value();
    EXPECT_THAT(Refusal(of), HasSubstr(name + " cannot be an element of a set"));
  }
}

TEST(ValueCheckTest, IntegersHaveAtMost4300Digits) {
  EXPECT_TRUE(Check(Big("-" + std::string(kMaxBigIntDigits, '9'))).ok());
  EXPECT_THAT(Refusal(Big("1" + std::string(4999, '0'))),
              HasSubstr("an integer of 5000 digits; at most 4300"));
  for (const char* text : {"", "-", "+1", "1.5", "0x10", "12a", " 1"}) {
    EXPECT_THAT(Refusal(Big(text)), HasSubstr("is not a decimal integer"));
  }
}

TEST(ValueCheckTest, DtypesAndDevicesAreThoseOfPyTorch) {
  for (const char* name : {"float32", "qint8", "float8_e8m0fnu", "uint7"}) {
    EXPECT_TRUE(IsDTypeText(name)) << name;
  }
  for (const char* name : {"", "float", "torch.float32", "nonsense", "FLOAT32"}) {
    EXPECT_FALSE(IsDTypeText(name)) << name;
  }
  for (const char* name : {"cpu", "cuda:0", "meta", "xpu:127", "privateuseone:3"}) {
    EXPECT_TRUE(IsDeviceText(name)) << name;
  }
  for (const char* name :
       {"", "gpu", "cuda:", "cuda:-1", "cuda:01", "cuda:128", "cuda:0:0", "cuda 0"}) {
    EXPECT_FALSE(IsDeviceText(name)) << name;
  }
  v1::Value value;
  value.set_dtype_value("float33");
  EXPECT_THAT(Refusal(value), HasSubstr("`float33` is no dtype of PyTorch"));
  value.set_device_value("gpu:0");
  EXPECT_THAT(Refusal(value), HasSubstr("`gpu:0` is no device of PyTorch"));
}

TEST(ValueCheckTest, TextIsUtf8) {
  EXPECT_THAT(Refusal(Dict({{StringValue("a"), StringValue("\xff")}})),
              HasSubstr("f: value a: a string is not UTF-8 at byte 0"));
  EXPECT_THAT(Refusal(Dict({{StringValue("\xed\xa0\x80"), IntValue(1)}})),
              HasSubstr("f: value: a string is not UTF-8"));
}

TEST(ValueCheckTest, OnlyAnOrderedDictHasAttributesAndTheirNamesAreStrings) {
  v1::Value dict = Dict({});
  auto* entry = dict.mutable_dict_value()->add_attributes();
  *entry->mutable_key() = StringValue("_metadata");
  *entry->mutable_value() = NoneValue();
  EXPECT_THAT(Refusal(dict), HasSubstr("only an OrderedDict has"));
  dict.mutable_dict_value()->set_ordered_dict(true);
  EXPECT_TRUE(Check(dict).ok()) << Check(dict);
  *entry->mutable_key() = IntValue(1);
  EXPECT_THAT(Refusal(dict), HasSubstr("a name in attributes is not a string"));
}

TEST(ValueCheckTest, TensorsAreReportedWithTheirPlaces) {
  v1::Value object = Object("m", "Config", {Tensor("a0")});
  auto* named = object.mutable_object_value();
  *named->add_attributes() =
      Dict({{StringValue("hook"), Tensor("a1")}}).dict_value().entries(0);
  *named->add_items() = Tensor("a2");
  *named->add_entries() = Dict({{IntValue(7), Tensor("a3")}}).dict_value().entries(0);
  *named->add_keywords() =
      Dict({{StringValue("k"), Tensor("a4")}}).dict_value().entries(0);
  const v1::Value tree = Dict({{StringValue("x/y~"), List({Tensor("b")})},
                               {Tuple({IntValue(0), StringValue("a/b")}), Tensor("c")},
                               {NoneValue(), Tensor("d")},
                               {Bytes(std::string("\0'", 2)), Tensor("e")},
                               {StringValue("o"), object}});
  std::vector<NamedTensor> tensors;
  ASSERT_TRUE(CheckValue("f", "value", tree, kMaxValueDepth, &tensors).ok());
  std::vector<std::string> places;
  for (const NamedTensor& tensor : tensors)
    places.push_back(tensor.key + "=" + tensor.place);
  EXPECT_THAT(places, ElementsAre("b=x~1y~0/0", "c=~:(0, 'a~1b')", "d=~:None",
                                  "e=~:b'\\x00\\''", "a0=o/~args/0", "a4=o/~keywords/k",
                                  "a1=o/~attributes/hook", "a2=o/0", "a3=o/7"));
  EXPECT_THAT(
      std::string(CheckValue("f", "value", tree, kMaxValueDepth, nullptr).message()),
      HasSubstr("a tensor has no place here"));
}

TEST(ValueCheckTest, EachTensorIsReportedOnceWithAShortPlaceHoweverLongItsPath) {
  std::vector<v1::Value> values;
  for (int i = 0; i < 1000; ++i) {
    values.push_back(Tensor(i % 2 == 0 ? "t" : absl::StrCat("t", i)));
  }
  const v1::Value tree =
      Dict({{StringValue(std::string(1 << 20, 'x')), List(std::move(values))}});
  std::vector<NamedTensor> tensors;
  ASSERT_TRUE(CheckValue("f", "value", tree, kMaxValueDepth, &tensors).ok());
  ASSERT_EQ(tensors.size(), 501u);
  EXPECT_EQ(tensors[0].place, std::string(128, 'x') + "...");
  for (const NamedTensor& tensor : tensors) ASSERT_LE(tensor.place.size(), 131u);
}

TEST(ValueCheckTest, ATreeNamesAtMostAsManyTensorsAsACheckpointHolds) {
  v1::Value list = List({});
  for (int i = 0; i <= kMaxTensors; ++i) {
    list.mutable_list_value()->add_values()->set_tensor_value(absl::StrCat(i));
  }
  EXPECT_THAT(Refusal(list), HasSubstr("names more than 262144 tensors"));
  list.mutable_list_value()->mutable_values()->RemoveLast();
  EXPECT_TRUE(Check(list).ok());
}

TEST(ValueCheckTest, IntegersBeyond63BitsEqualTheDoubleThatIsExactlyThem) {
  auto identity = [](const v1::Value& value) { return *HashIdentity(value); };
  for (const auto& [digits, real] : std::vector<std::pair<std::string, double>>{
           {"9223372036854775808", std::ldexp(1.0, 63)},
           {"-9223372036854775808", -std::ldexp(1.0, 63)},
           {"018446744073709551616", std::ldexp(1.0, 64)},
           {"9223372036854774784", std::ldexp(1.0, 63) - 1024}}) {
    EXPECT_EQ(identity(Big(digits)), identity(FloatValue(real))) << digits;
  }
  EXPECT_EQ(identity(IntValue(std::numeric_limits<int64_t>::min())),
            identity(FloatValue(-std::ldexp(1.0, 63))));
  EXPECT_NE(identity(IntValue(std::numeric_limits<int64_t>::max())),
            identity(FloatValue(std::ldexp(1.0, 63))));
  EXPECT_NE(identity(Big("9223372036854775809")),
            identity(FloatValue(std::ldexp(1.0, 63))));
  EXPECT_NE(identity(Big("1" + std::string(308, '0'))), identity(FloatValue(1e308)));
  EXPECT_LT(identity(FloatValue(1e308)).size(), 32u);
}

TEST(ValueCheckTest, AnObjectHasATypeAndAttributesOrAState) {
  EXPECT_THAT(Refusal(Object("", "Counter")), HasSubstr("module and qualified_name"));
  EXPECT_THAT(Refusal(Object("m", "a\nb")), HasSubstr("module and qualified_name"));
  v1::Value object = Object("m", "C");
  *object.mutable_object_value()->mutable_state() = Tuple({IntValue(1)});
  EXPECT_TRUE(Check(object).ok()) << Check(object);
  *object.mutable_object_value()->add_attributes() =
      Dict({{StringValue("a"), IntValue(1)}}).dict_value().entries(0);
  EXPECT_THAT(Refusal(object), HasSubstr("attributes or a state, not both"));
}

TEST(ValueCheckTest, ARefusalIsShortHoweverLongTheTree) {
  const std::string text(100'000, 'x');
  const v1::Value tree = Dict({{StringValue(text), v1::Value()}});
  EXPECT_LT(Refusal(tree).size(), 1000u);
  EXPECT_LT(Refusal(Dict({{List({StringValue(text)}), IntValue(1)}})).size(), 1000u);
  EXPECT_LT(Refusal(Big(text)).size(), 1000u);
}

}  // namespace
}  // namespace modelstore
