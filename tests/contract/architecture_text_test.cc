// One module as a string: what is read, what is refused and how that is said.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/parse.h"
#include "proto/contract/architecture/tensors.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/architecture/value.h"

namespace modelstore {
namespace {

using testing::HasSubstr;

std::string Reprinted(const std::string& text,
                      UnknownTypes unknown = UnknownTypes::kRefuse) {
  const auto module = ParseModule("module", text, unknown);
  EXPECT_TRUE(module.ok()) << module.status();
  return module.ok() ? PrintModule(*module) : "";
}

std::string Refusal(const std::string& text) {
  const auto module = ParseModule("edits[0].module", text);
  EXPECT_EQ(module.status().code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_THAT(std::string(module.status().message()), HasSubstr("edits[0].module: "));
  return std::string(module.status().message());
}

TEST(ParseModule, ShortAndFullFormsAreTheSameModule) {
  const std::string full = "Linear(in_features=4096, out_features=10, bias=True)";
  for (const char* text :
       {"Linear(4096, 10)", "Linear(4096,10,True)", "nn.Linear(4096, out_features=10)",
        " torch.nn.Linear ( bias = True , out_features=10, in_features=4096 ,) "}) {
    EXPECT_EQ(Reprinted(text), full) << text;
  }
  EXPECT_EQ(Reprinted(full), full);
  EXPECT_EQ(ParseModule("m", full)->SerializeAsString(),
            ParseModule("m", "Linear(4096, 10)")->SerializeAsString());
}

TEST(ParseModule, ArgumentsAreStoredInFullApartFromHowTheyPrint) {
  const auto pool = ParseModule("m", "MaxPool2d(2, return_indices=True)");
  ASSERT_TRUE(pool.ok());
  EXPECT_TRUE(FlagOf(*pool, "return_indices"));
  EXPECT_EQ(AsInt(*FindArgument(*pool, "stride")), 2);
  EXPECT_EQ(pool->arguments_size(), 6);
  const auto conv = ParseModule("m", "Conv2d(1, 1, 3)");
  EXPECT_EQ(AsInts(*FindArgument(*conv, "kernel_size")), (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(FindArgument(*conv, "nothing"), nullptr);
  EXPECT_TRUE(conv->training());
}

TEST(ParseModule, ReadsWordsStringsTuplesAndSpecialNumbers) {
  EXPECT_EQ(Reprinted("Conv1d(1, 1, (3,), padding=\"same\")"),
            "Conv1d(1, 1, kernel_size=(3,), stride=(1,), padding=same)");
  EXPECT_EQ(Reprinted("GELU(tanh)"), "GELU(approximate='tanh')");
  EXPECT_EQ(Reprinted("Hardtanh(-inf, +1e3)"), "Hardtanh(min_val=-inf, max_val=1000.0)");
  EXPECT_EQ(Reprinted("LayerNorm([2, 3])"),
            "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True)");
  EXPECT_EQ(Reprinted("AdaptiveAvgPool2d((None, 7))"),
            "AdaptiveAvgPool2d(output_size=(None, 7))");
  EXPECT_EQ(Reprinted("ReLU((True))"), "ReLU(inplace=True)");
}

TEST(ParseModule, AnUnknownTypeIsKeptOnlyWhereAskedFor) {
  EXPECT_THAT(Refusal("DropPath(0.1)"), HasSubstr("unknown module type `DropPath`"));
  EXPECT_EQ(Reprinted("timm.DropPath(0.1, mode='row', x=None)", UnknownTypes::kKeep),
            "DropPath(0.1, mode='row', x=None)");
}

TEST(ParseModule, SyntaxErrorsSayWhatWasExpectedWhere) {
  EXPECT_THAT(Refusal("Linear(4096 10)"),
              HasSubstr("expected `,` or `)` at character 13, before `10)`"));
  EXPECT_THAT(Refusal("Linear(4096, 10"),
              HasSubstr("at character 16, where the text ends"));
  EXPECT_THAT(Refusal(""), HasSubstr("expected a module's type at character 1"));
  EXPECT_THAT(Refusal("nn.(1)"), HasSubstr("expected a type after the dot"));
  EXPECT_THAT(Refusal("4096"), HasSubstr("expected a module's type"));
  EXPECT_THAT(Refusal("Linear"), HasSubstr("expected `(`"));
  EXPECT_THAT(Refusal("Linear(1, 2) x"), HasSubstr("expected the end at character 14"));
  EXPECT_THAT(Refusal("Linear(in_features=1, 2)"),
              HasSubstr("an argument with its name"));
  EXPECT_THAT(Refusal("Linear(1, *2)"), HasSubstr("expected a value at character 11"));
  EXPECT_THAT(Refusal("GELU('tanh)"), HasSubstr("a closing '"));
  EXPECT_THAT(Refusal("Conv2d(1, 1, (3, 3)"), HasSubstr("where the text ends"));
  EXPECT_THAT(Refusal("Linear(1 << 20, 2)"), HasSubstr("character 10"));
  EXPECT_THAT(Refusal(std::string("Linear\0(1, 2)", 13)), HasSubstr("character 7"));
  EXPECT_THAT(Refusal("Linear(\xff)"), HasSubstr("UTF-8"));
  EXPECT_THAT(Refusal("Linear(99999999999999999999, 1)"), HasSubstr("expected a value"));
  EXPECT_THAT(Refusal("ModuleDict({a: ReLU()})"), HasSubstr("a name in quotes"));
}

TEST(ParseModule, ArgumentErrorsNameTheTypeAndTheArgument) {
  EXPECT_THAT(Refusal("Linear(4096)"), HasSubstr("Linear needs `out_features`"));
  EXPECT_THAT(Refusal("Linear(1, 2, True, 3)"), HasSubstr("Linear takes at most 3"));
  EXPECT_THAT(Refusal("Linear(1, 2, width=3)"), HasSubstr("no argument `width`"));
  EXPECT_THAT(Refusal("Linear(1, 2, in_features=3)"),
              HasSubstr("`in_features` is given twice"));
  EXPECT_THAT(Refusal("Linear(-1, 2)"),
              HasSubstr("`in_features` must be an integer from 0 to 2^40, not -1"));
  EXPECT_THAT(Refusal("Linear(1.0, 2)"), HasSubstr("not 1.0"));
  EXPECT_THAT(Refusal("Linear(True, 2)"), HasSubstr("not True"));
  EXPECT_THAT(Refusal("Linear(1, None)"), HasSubstr("not None"));
  EXPECT_THAT(Refusal("Linear(1099511627777, 1)"), HasSubstr("2^40"));
  EXPECT_THAT(Refusal("Conv2d(1, 1, (3, 3, 3))"),
              HasSubstr("`kernel_size` must be a size or a tuple of 2 sizes"));
  EXPECT_THAT(Refusal("Conv1d(1, 1, 3, padding='half')"),
              HasSubstr("or one of: same valid, not 'half'"));
  EXPECT_THAT(Refusal("MaxPool1d('x')"), HasSubstr("a tuple of 1 size, not 'x'"));
  EXPECT_THAT(Refusal("ZeroPad2d((1, 2))"), HasSubstr("a tuple of 4 integers"));
  EXPECT_THAT(Refusal("EmbeddingBag(1, 2, mode='min')"),
              HasSubstr("one of: sum mean max"));
  EXPECT_THAT(Refusal("Upsample(scale_factor='x')"), HasSubstr("a number or a tuple"));
  EXPECT_THAT(Refusal("Dropout(None)"), HasSubstr("a number, not None"));
  EXPECT_THAT(Refusal("LayerNorm('x')"), HasSubstr("a size or a tuple of sizes"));
  EXPECT_THAT(Refusal("GLU(1.5)"), HasSubstr("an integer, not 1.5"));
  EXPECT_THAT(Refusal("RNN(1, 1, 0)"), HasSubstr("an integer from 1 to 2^40"));
  EXPECT_THAT(Refusal("ReLU(1)"), HasSubstr("True or False"));
}

TEST(ParseModule, WhatPyTorchsConstructorsRefuseTogetherIsRefused) {
  EXPECT_THAT(Refusal("Conv2d(3, 4, 1, groups=2)"), HasSubstr("groups must divide"));
  EXPECT_THAT(Refusal("Conv2d(1, 1, 3, stride=2, padding='same')"),
              HasSubstr("needs a stride of 1"));
  EXPECT_THAT(Refusal("GroupNorm(3, 8)"), HasSubstr("num_groups must divide"));
  EXPECT_THAT(Refusal("MultiheadAttention(8, 3)"), HasSubstr("num_heads must divide"));
  EXPECT_THAT(Refusal("TransformerEncoderLayer(8, 3)"), HasSubstr("nhead must divide"));
  EXPECT_THAT(Refusal("LSTM(1, 2, proj_size=2)"), HasSubstr("smaller than hidden_size"));
  EXPECT_THAT(Refusal("GRU(1, 1, 5000)"), HasSubstr("more than 4096 layers"));
  EXPECT_THAT(Refusal("Upsample()"), HasSubstr("either size or scale_factor"));
}

TEST(ParseModule, ContainersTakeModulesAndNothingElse) {
  EXPECT_THAT(Refusal("Sequential(1)"), HasSubstr("takes modules as arguments"));
  EXPECT_THAT(Refusal("Sequential(a=ReLU())"), HasSubstr("without names"));
  EXPECT_THAT(Refusal("Linear(ReLU(), 1)"), HasSubstr("takes no module as an argument"));
  EXPECT_THAT(Refusal("ModuleList(ReLU())"), HasSubstr("a list of modules, in brackets"));
  EXPECT_THAT(Refusal("ModuleList([1])"), HasSubstr("a list of modules"));
  EXPECT_THAT(Refusal("ModuleList([ReLU(), 1])"), HasSubstr("either modules or values"));
  EXPECT_THAT(Refusal("ModuleDict([ReLU()])"), HasSubstr("a dict of modules, in braces"));
  EXPECT_THAT(Refusal("ModuleDict({'a.b': ReLU()})"), HasSubstr("without dots"));
  EXPECT_THAT(Refusal("ModuleDict({'a': ReLU(), 'a': ReLU()})"),
              HasSubstr("`a` is given"));
  EXPECT_EQ(Reprinted("ModuleList([])"), "ModuleList()");
  EXPECT_THAT(Refusal("TransformerEncoder(2)"), HasSubstr("needs a layer"));
  EXPECT_THAT(Refusal("TransformerEncoder(ReLU(), 1, 2)"), HasSubstr("None as norm"));
  EXPECT_THAT(Refusal("TransformerEncoder(ReLU(), 1, x=2)"), HasSubstr("each once"));
}

TEST(ParseModule, AShortTextCannotAskForMuch) {
  EXPECT_THAT(Refusal("TransformerEncoder(TransformerEncoderLayer(8, 2), 1099511627776)"),
              HasSubstr("more than 65536 modules"));
  EXPECT_THAT(Refusal("Transformer(8, 2, 5000, 5000)"), HasSubstr("modules"));
  EXPECT_THAT(
      Refusal("TransformerEncoder(TransformerEncoder(TransformerEncoder(ReLU(), 100), "
              "100), 100)"),
      HasSubstr("modules"));
  std::string many = "Sequential(";
  for (int i = 0; i < 40; ++i) many += "TransformerEncoder(ReLU(), 5000), ";
  EXPECT_THAT(Refusal(many + ")"), HasSubstr("more than 65536 modules"));
  std::string deep;
  for (int i = 0; i < 10'000; ++i) deep += "Sequential(";
  EXPECT_THAT(Refusal(deep.substr(0, 60'000)), HasSubstr("nested more than 64 deep"));
  EXPECT_THAT(Refusal("Linear(" + std::string(60'000, '(')), HasSubstr("nested"));
  EXPECT_THAT(Refusal("Linear(" + std::string(60'000, '[')), HasSubstr("nested"));
  EXPECT_THAT(Refusal(std::string(70'000, 'x')), HasSubstr("longer than 65536 bytes"));
}

TEST(PrintModule, FloatsPrintAsPythonsRepr) {
  const auto printed = [](double d) { return PrintValue(FloatValue(d)); };
  EXPECT_EQ(printed(1e-05), "1e-05");
  EXPECT_EQ(printed(0.0001), "0.0001");
  EXPECT_EQ(printed(0.1 + 0.2), "0.30000000000000004");
  EXPECT_EQ(printed(5), "5.0");
  EXPECT_EQ(printed(-0.0), "-0.0");
  EXPECT_EQ(printed(1e15), "1000000000000000.0");
  EXPECT_EQ(printed(1e16), "1e+16");
  EXPECT_EQ(printed(1.5e300), "1.5e+300");
  EXPECT_EQ(printed(-INFINITY), "-inf");
  EXPECT_EQ(printed(NAN), "nan");
}

TEST(PrintModule, ValuesPrintAsPythonsRepr) {
  EXPECT_EQ(PrintValue(StringValue("it's")), "\"it's\"");
  EXPECT_EQ(PrintValue(StringValue("a\"b'c\n\x01")), "'a\"b\\'c\\n\\x01'");
  EXPECT_EQ(PrintValue(v1::Value()), "None");
  v1::Value nested = TupleValue({1});
  *nested.mutable_tuple_value()->add_values() = BoolValue(false);
  EXPECT_EQ(PrintValue(nested), "(1, False)");
  v1::Value dict;
  auto* entry = dict.mutable_dict_value()->add_entries();
  *entry->mutable_key() = StringValue("k");
  *entry->mutable_value() = TupleValue({});
  EXPECT_EQ(PrintValue(dict), "{'k': ()}");
  v1::Value size;
  size.mutable_size_value()->add_sizes(2);
  EXPECT_EQ(PrintValue(size), "torch.Size([2])");
}

TEST(PrintModule, AModuleThatLacksArgumentsStillPrints) {
  ModuleTree module;
  module.set_type("Linear");
  module.set_incomplete(true);
  EXPECT_EQ(PrintModule(module), "Linear()");
  module.set_incomplete(false);
  EXPECT_EQ(PrintModule(module), "Linear(in_features=?, out_features=?, bias=?)");
}

TEST(ModuleTensors, RefuseASizeThatNoTensorHas) {
  const auto module = ParseModule("m", "Linear(1099511627776, 1099511627776)");
  ASSERT_TRUE(module.ok());
  EXPECT_EQ(ModuleTensors(*module).status().code(), absl::StatusCode::kInvalidArgument);
  ModuleTree broken;
  broken.set_type("Linear");
  EXPECT_EQ(ModuleTensors(broken).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FindInconsistencies, SayWhatIsMissingUnexpectedAndOfAnotherShape) {
  v1::Architecture architecture;
  *architecture.mutable_root() = *ParseModule("m", "Sequential(Linear(2, 3), ReLU())");
  const KeysAndShapes fits = {{"0.weight", {3, 2}}, {"0.bias", {3}}};
  EXPECT_TRUE(FindInconsistencies(architecture, fits)->empty());
  const auto inconsistencies =
      FindInconsistencies(architecture, {{"0.weight", {2, 3}}, {"1.weight", {}}});
  ASSERT_TRUE(inconsistencies.ok());
  ASSERT_EQ(inconsistencies->size(), 3u);
  EXPECT_EQ((*inconsistencies)[0].ToString(),
            "0.weight: shape [3, 2] by the architecture, [2, 3] stored");
  EXPECT_EQ((*inconsistencies)[1].ToString(),
            "0.bias: missing; the architecture has it with shape [3]");
  EXPECT_EQ((*inconsistencies)[2].ToString(),
            "1.weight: belongs to no module of the architecture");
}

TEST(FindInconsistencies, KeysRightBelowAModuleThatIsNotKnownFit) {
  v1::Architecture architecture;
  ModuleTree& root = *architecture.mutable_root();
  root.set_type("Net");
  ModuleTree& child = *root.add_children();
  child = *ParseModule("m", "Linear(2, 3, False)");
  child.set_name("fc");
  const auto inconsistencies = FindInconsistencies(
      architecture, {{"scale", {7}}, {"fc.weight", {3, 2}}, {"other.weight", {1}}});
  ASSERT_TRUE(inconsistencies.ok());
  ASSERT_EQ(inconsistencies->size(), 1u);
  EXPECT_EQ((*inconsistencies)[0].key, "other.weight");
  EXPECT_EQ(TensorsOf(root)->unknown, std::vector<std::string>{""});
  EXPECT_EQ(TensorsOf(child, "a.b")->tensors[0].key, "a.b.weight");
}

TEST(TensorsOf, MoreThanACheckpointMayHoldIsRefused) {
  ModuleTree list = *ParseModule("m", "ModuleList()");
  const ModuleTree lstm =
      *ParseModule("m", "LSTM(1, 2, 4096, bidirectional=True, proj_size=1)");
  for (int i = 0; i < 7; ++i) {
    *list.add_children() = lstm;
    list.mutable_children(i)->set_name(absl::StrCat(i));
  }
  EXPECT_EQ(TensorsOf(list).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace modelstore
