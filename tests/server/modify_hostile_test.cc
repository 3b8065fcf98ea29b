// ModifyCheckpoint of what a client may store and ask for without meaning well: sizes
// out of bounds, architectures that contradict their tensors, sections that are laid
// out as nothing. Each is an answer, and nothing is stored.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/limits.h"
#include "server/core/convert.h"
#include "server/modify/apply_edit.h"
#include "server/modify/follow_optimizer.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/optimizer_section.h"
#include "server/modify/optimizer_slice.h"
#include "server/modify/write_out.h"
#include "tests/server/module_harness.h"

namespace modelstore::server::modify {
namespace {

using ::testing::HasSubstr;

class HostileEditTest : public ModuleEditTest {
 protected:
  void ExpectRefused(const Modified& modified, const std::string& text) {
    EXPECT_EQ(modified.status.code(), absl::StatusCode::kInvalidArgument)
        << modified.status;
    EXPECT_THAT(std::string(modified.status.message()), HasSubstr(text));
    EXPECT_EQ(LatestVersion(), saved_);
  }

  // Saves zeros as models/m with this architecture.
  void SaveWith(const std::string& module, const std::vector<int64_t>& shape) {
    int64_t elements = 1;
    for (const int64_t size : shape) elements *= size;
    const TestTensor weight =
        Parameter("fc.weight", shape, std::vector<float>(elements, 0.0F));
    std::vector<v1::SaveCheckpointRequest> requests(2);
    requests[0].set_parent("models/m");
    requests[0].set_create_model(true);
    *requests[0].mutable_checkpoint()->mutable_architecture()->mutable_root() =
        Net({{"fc", module}});
    *requests[0].mutable_manifest()->add_tensors() = weight.tensor;
    for (const auto& chunk : weight.chunks) AddChunk(&requests[0], chunk);
    requests[1].set_finish(true);
    const auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
    saved_ = saved->version();
  }

  // Stores the latest version once more, with an architecture that no save takes.
  void StoreArchitecture(const std::string& text) {
    v1::Architecture architecture;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &architecture));
    auto read = harness_.store().reads().Open("m", storage::VersionName{});
    ASSERT_TRUE(read.ok()) << read.status();
    auto checkpoint = WorkingCheckpoint::Of(*read);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    WriteOut out(&*checkpoint);
    storage::SaveRequest request;
    request.model_id = "m";
    request.metadata.set_architecture(EncodeArchitecture(architecture));
    auto save = harness_.store().saves().StartDerived(request, out.sources());
    ASSERT_TRUE(save.ok()) << save.status();
    const auto made = (*save)->Commit(out.Manifest(), {});
    ASSERT_TRUE(made.ok()) << made.status();
    saved_ = made->version();
  }

  // Saves tensor `w` and, where it has a key, a tensor of section `optimizer`, whose
  // value this is.
  void SaveOptimizer(const std::string& value, const std::string& key = "") {
    const TestTensor weight = Parameter("w", {2}, {1, 2});
    std::vector<v1::SaveCheckpointRequest> requests(2);
    requests[0].set_parent("models/m");
    requests[0].set_create_model(true);
    auto& manifest = *requests[0].mutable_manifest();
    *manifest.add_tensors() = weight.tensor;
    AddChunk(&requests[0], weight.chunks[0]);
    if (!key.empty()) {
      TestTensor state = MakeTensor(key, v1::DTYPE_FLOAT32, {2}, BytesOf<float>({3, 4}));
      state.tensor.set_section("optimizer");
      *manifest.add_tensors() = state.tensor;
      AddChunk(&requests[0], state.chunks[0]);
    }
    v1::Section& section = *manifest.add_sections();
    section.set_name("optimizer");
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
        value, section.mutable_value()->mutable_dict_value()));
    requests[1].set_finish(true);
    const auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
    saved_ = saved->version();
  }

  int64_t saved_ = 0;
};

constexpr char kEmptyState[] =
    "entries { key { string_value: 'state' } value { dict_value {} } } ";

TEST_F(HostileEditTest, AResizeBeyondWhatOneEditMakesIsRefusedWithBothFigures) {
  SaveWith("Linear(1, 1, bias=False)", {1, 1});
  for (const char* size : {"2147483648", "1099511627776"}) {
    for (const char* rows : {"NEW_ROWS_ZEROS", "NEW_ROWS_MEAN", "NEW_ROWS_DEFAULT"}) {
      const Modified modified =
          Modify(absl::StrCat("edits { resize_output { path: 'fc' size: ", size,
                              " new_rows: ", rows, " } } validate_only: true"));
      ExpectRefused(modified, "edits[0].resize_output");
      ExpectRefused(modified, "at most 1073741824");
    }
  }
}

TEST_F(HostileEditTest, ALargeResizeTakesNoMemoryForItsRows) {
  SaveWith("Linear(1, 1, bias=False)", {1, 1});
  const Modified modified = Modify(
      "edits { resize_output { path: 'fc' size: 33554432 new_rows: NEW_ROWS_MEAN } } "
      "validate_only: true");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_EQ(modified.result.new_tensor_bytes(), (int64_t{33554432} - 1) * 4);
}

TEST_F(HostileEditTest, AllEditsOfACallTogetherMakeNoMoreThanIsAllowed) {
  SaveWith("Linear(1, 1, bias=False)", {1, 1});
  std::string edits;
  for (int i = 0; i < 5; ++i) {
    absl::StrAppend(
        &edits,
        "edits { resize_output { path: 'fc' size: 1073741824 new_rows: NEW_ROWS_ZEROS } "
        "} edits { resize_output { path: 'fc' size: 1 } }");
  }
  const Modified modified = Modify(edits + " validate_only: true");
  ExpectRefused(modified, "edits[8].resize_output.size");
  ExpectRefused(modified, "make at most 4294967296");
}

TEST_F(HostileEditTest, TheMeanOfATensorOfOneRepeatedChunkIsRefused) {
  constexpr int64_t kChunk = int64_t{4} << 20, kColumns = 100'000'000'000;
  const std::string chunk(kChunk, '\0'), last(kColumns * 2 % kChunk, '\0');
  std::vector<v1::SaveCheckpointRequest> requests(2);
  requests[0].set_parent("models/m");
  requests[0].set_create_model(true);
  v1::Tensor& tensor = *requests[0].mutable_manifest()->add_tensors();
  tensor.set_key("fc.weight");
  tensor.set_dtype(v1::DTYPE_FLOAT16);
  tensor.add_shape(1);
  tensor.add_shape(kColumns);
  v1::Piece& piece = *tensor.add_pieces();
  piece.set_chunk_size_bytes(kChunk);
  const std::string digest = DigestOf(chunk);
  for (int64_t c = 0; c < kColumns * 2 / kChunk; ++c) {
    piece.mutable_chunk_digests()->append(digest);
  }
  piece.mutable_chunk_digests()->append(DigestOf(last));
  AddChunk(&requests[0], chunk);
  AddChunk(&requests[1], last);
  requests[1].set_finish(true);
  const auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
  saved_ = 1;
  const std::string resize = "edits { resize_output { path: 'fc' size: 2 new_rows: ";
  ExpectRefused(Modify(resize + "NEW_ROWS_MEAN } }"), "makes 100000000000 new elements");
}

TEST_F(HostileEditTest, AnArchitectureThatContradictsItselfIsRefusedWhenItIsSaved) {
  v1::SaveCheckpointRequest request;
  request.set_parent("models/m");
  request.set_create_model(true);
  ModuleTree root = Net({{"fc", "Conv2d(1, 1, 1)"}});
  for (auto& argument : *root.mutable_children(0)->mutable_arguments()) {
    if (argument.name() == "groups") argument.mutable_value()->set_int_value(0);
  }
  *request.mutable_checkpoint()->mutable_architecture()->mutable_root() = root;
  request.set_finish(true);
  EXPECT_THAT(
      harness_.Save({request}),
      FailsWith(absl::StatusCode::kInvalidArgument,
                "architecture.root.children[0].arguments: Conv2d: `groups` must be "
                "an integer from 1 to 2^40, not 0"));
}

TEST_F(HostileEditTest, GroupsOfZeroThatAreStoredAreAnErrorOfTheEdit) {
  SaveWith("Conv2d(1, 1, 1, bias=False)", {1, 1, 1, 1});
  const std::string child =
      "root { type: 'Net' children { name: 'fc' type: 'Conv2d' "
      "arguments { name: 'groups' value { int_value: 0 } } ";
  const std::string resize =
      "edits { resize_output { path: 'fc' size: 2 new_rows: NEW_ROWS_ZEROS } } "
      "validate_only: "
      "true";
  StoreArchitecture(child + "} }");
  ExpectRefused(Modify(resize), "edits[0].resize_output.path: Conv2d: `groups` must be");
  StoreArchitecture(child + "incomplete: true } }");
  EXPECT_TRUE(Modify(resize).status.ok()) << "nothing is known of it";
}

TEST_F(HostileEditTest, ATensorThatIsNotWhatTheArchitectureSaysIsNotResized) {
  struct Case {
    const char* module;
    std::vector<int64_t> shape;
    const char* size;
  };
  for (const Case& c : {Case{"Linear(1, 1, bias=False)", {1, 2}, "2"},
                        Case{"Linear(1, 1, bias=False)", {1, 4}, "2"},
                        Case{"Linear(1, 1, bias=False)", {10, 1000}, "12"},
                        Case{"Embedding(10, 10, padding_idx=0)", {10, 30}, "14"},
                        Case{"Linear(10, 10, bias=False)", {10, 9}, "11"}}) {
    SaveWith(c.module, c.shape);
    const Modified modified =
        Modify(absl::StrCat("edits { resize_output { path: 'fc' size: ", c.size, " } }"));
    ExpectRefused(modified, "edits[0].resize_output.path: fc.weight is [");
    ExpectRefused(modified, "by the architecture");
  }
}

TEST_F(HostileEditTest, AGroupWithoutParamsIsNoGroundToFail) {
  SaveOptimizer(absl::StrCat(kEmptyState,
                             "entries { key { string_value: 'param_groups' } value { "
                             "list_value { values { dict_value {} } } } }"));
  EXPECT_TRUE(
      Modify("edits { cast { dtype: DTYPE_FLOAT16 } } validate_only: true").status.ok());
  ExpectRefused(Modify("edits { drop_keys { patterns: 'w' } }"),
                "param_groups[0] has no list `params`");
  ExpectRefused(Modify("optimizer_policy: OPTIMIZER_POLICY_RESET edits { cast { dtype: "
                       "DTYPE_FLOAT16 } }"),
                "param_groups[0] has no list `params`");
}

TEST_F(HostileEditTest, AGroupThatIsNoDictIsAnErrorOfWhatNeedsIt) {
  SaveOptimizer(absl::StrCat(kEmptyState,
                             "entries { key { string_value: 'param_groups' } value { "
                             "list_value { values { int_value: 3 } } } }"));
  ExpectRefused(Modify("edits { drop_keys { patterns: 'w' } }"),
                "param_groups[0] is no dict");
}

TEST_F(HostileEditTest, AStateThatIsATensorMayBeDropped) {
  for (const char* option : {"",
                             "entries { key { string_value: 'initial_accumulator_value' "
                             "} value { double_value: 0.5 } }"}) {
    SaveOptimizer(
        absl::StrCat(
            "entries { key { string_value: 'state' } value { tensor_value: 'state' "
            "} } entries { key { string_value: 'param_groups' } value { list_value { "
            "values { dict_value { entries { key { string_value: 'params' } value { "
            "list_value { values { int_value: 0 } } } } ",
            option, " } } } } }"),
        "state");
    ExpectRefused(Modify("edits { drop_keys { patterns: 'w' } }"), "`state` is no dict");
    const Modified modified =
        Modify("edits { drop_keys { section: 'optimizer' patterns: 'state' } }");
    ASSERT_TRUE(modified.status.ok()) << modified.status;
  }
}

TEST_F(HostileEditTest, StateThatTwoParametersShareIsNotSlicedTwice) {
  const std::string shared =
      "value { dict_value { entries { key { string_value: 'exp_avg' } value { "
      "tensor_value: 'm' } } } } } ";
  TestTensor a = Parameter("a.weight", {2, 1}, {1, 2});
  TestTensor b = Parameter("b.weight", {2, 1}, {3, 4});
  TestTensor m = MakeTensor("m", v1::DTYPE_FLOAT32, {2, 1}, BytesOf<float>({5, 6}));
  m.tensor.set_section("optimizer");
  std::vector<v1::SaveCheckpointRequest> requests(2);
  requests[0].set_parent("models/m");
  requests[0].set_create_model(true);
  for (const TestTensor* tensor : {&a, &b, &m}) {
    *requests[0].mutable_manifest()->add_tensors() = tensor->tensor;
    AddChunk(&requests[0], tensor->chunks[0]);
  }
  v1::Section& section = *requests[0].mutable_manifest()->add_sections();
  section.set_name("optimizer");
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      absl::StrCat(
          "entries { key { string_value: 'state' } value { dict_value { "
          "entries { key { int_value: 0 } ",
          shared, "entries { key { int_value: 1 } ", shared,
          "} } } entries { key { string_value: 'param_groups' } value { list_value { "
          "values { dict_value { "
          "entries { key { string_value: 'params' } value { list_value { "
          "values { int_value: 0 } values { int_value: 1 } } } } "
          "entries { key { string_value: 'param_names' } value { list_value { "
          "values { string_value: 'a.weight' } values { string_value: 'b.weight' } "
          "} } } } } } } }"),
      section.mutable_value()->mutable_dict_value()));
  requests[1].set_finish(true);
  ASSERT_TRUE(harness_.Save(requests).ok());
  saved_ = 1;
  const std::string resize = "size: 3 new_rows: NEW_ROWS_ZEROS } } ";
  ExpectRefused(Modify("edits { resize_output { path: 'a' " + resize +
                       "edits { resize_output { path: 'b' " + resize),
                "optimizer:m is the state of two parameters");
}

TEST_F(HostileEditTest, APrefixLongerThanAKeyIsRefusedAndMetadataIsBoundedToo) {
  with_metadata_ = true;
  SaveModule(Net({{"fc", "Linear(1, 1)"}}));
  saved_ = 1;
  const Modified longer = Modify(
      absl::StrCat("edits { add_prefix { prefix: '", std::string(300'000, 'x'), "' } }"));
  ExpectRefused(longer,
                "edits[0].add_prefix.prefix: is 300000 bytes long, of at most 1024");
  const std::string names = std::string(510, 'x') + ".";
  ExpectRefused(Modify(absl::StrCat("edits { add_prefix { prefix: '", names, "' } }",
                                    "edits { add_prefix { prefix: '", names, "' } }")),
                "edits[1].add_prefix.prefix");
  ExpectRefused(
      Modify(absl::StrCat("edits { rename_keys { pattern: '(.*)' replacement: '",
                          std::string(5000, 'x'), "\\\\1' } }")),
      "edits[0].rename_keys.replacement: is 5002 bytes long, of at most 4096");
}

TEST_F(HostileEditTest, CastsThatAreStackedBeyondTheBoundAreRefusedWithBothFigures) {
  Save({Parameter("w", {4}, {1, 2, 3, 4})});
  saved_ = 1;
  std::string edits;
  for (int i = 0; i < 1000; ++i) {
    absl::StrAppend(&edits, "edits { cast { dtype: ",
                    i % 2 == 0 ? "DTYPE_FLOAT16" : "DTYPE_FLOAT32", " } } ");
  }
  const Modified modified = Modify(edits);
  ExpectRefused(modified, "w would be computed in 65 steps, of at most 64");
  ExpectRefused(modified, "edits[63].cast");
}

TEST_F(HostileEditTest, MoreTensorsThanACheckpointHoldsAreRefusedByTheEditThatAddsThem) {
  Save({Parameter("w", {1}, {1})});
  saved_ = 1;
  std::string edits;
  for (int i = 0; i < 20; ++i) {
    absl::StrAppend(
        &edits, "edits { add_module { path: 'x", i,
        "' module: 'LSTM(1, 1, 4096)' initialization { scheme: SCHEME_ZEROS } } } ");
  }
  ExpectRefused(Modify(edits), "tensors, of at most 262144");
}

TEST_F(HostileEditTest, WhatTheServerHasNoRoomToKeepIsRefusedWithBothFigures) {
  Save({Parameter("w", {4}, {1, 2, 3, 4})});
  auto read = harness_.store().reads().Open("m", 1);
  ASSERT_TRUE(read.ok());
  auto checkpoint = WorkingCheckpoint::Of(*read);
  ASSERT_TRUE(checkpoint.ok());
  const v1::ModifyCheckpointRequest request;
  EditResources resources(std::make_shared<SessionMemory>(1000), *checkpoint, request);
  ASSERT_TRUE(resources.Reserve(900).ok());
  const absl::Status refused = resources.Reserve(200);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("needs 200 bytes of memory beside the 900 that it has"));
}

class TightMemoryTest : public HostileEditTest {
 protected:
  // Applies an edit to the latest version with so much memory.
  absl::Status Apply(const std::string& text, int64_t bytes) {
    auto read = harness_.store().reads().Open("m", storage::VersionName{});
    if (!read.ok()) return read.status();
    auto checkpoint = WorkingCheckpoint::Of(*read);
    if (!checkpoint.ok()) return checkpoint.status();
    const v1::ModifyCheckpointRequest request;
    EditResources resources(std::make_shared<SessionMemory>(bytes), *checkpoint, request);
    ServiceContext service;
    service.store = &harness_.store();
    Sources sources(&service, *read);
    Report report;
    v1::Edit edit;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &edit));
    v1::Edit resolved = edit;
    EditContext context{*checkpoint, report, sources, resources,
                        0,           "kind", false,   resolved};
    return ApplyEdit(edit, context);
  }
};

TEST_F(TightMemoryTest, PathsOfRenamedKeysAreReservedAndOfKeysThatStayNotMade) {
  std::vector<TestTensor> tensors;
  for (int i = 0; i < 20; ++i) {
    std::string key = absl::StrCat("k", i);
    for (int level = 0; level < 200; ++level) key += ".a";
    tensors.push_back(Parameter(key, {1}, {1}));
  }
  Save(tensors);
  const std::string rename = "rename_keys { replacement: 'x\\\\1' pattern: ";
  EXPECT_EQ(Apply(rename + "'k0(.*)' }", 100'000).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Apply(rename + "'k0(.*)' }", 1'000'000).ok());
  EXPECT_EQ(Apply(rename + "'none(.*)' }", 100'000).code(), absl::StatusCode::kNotFound);
}

TEST_F(TightMemoryTest, TensorsOfAnAverageAreReserved) {
  Save({Parameter("a", {1}, {1}), Parameter("b", {1}, {1})});
  std::string average = "average { ";
  for (int i = 0; i < 256; ++i) {
    average += "checkpoints: 'models/m/checkpoints/1' ";
  }
  EXPECT_EQ(Apply(average + "}", 10'000).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Apply(average + "}", 20'000).ok());
}

TEST_F(TightMemoryTest, WhatSectionsDecodeToIsReserved) {
  with_metadata_ = true;
  SaveModule(Net({{"a", "Linear(1, 1)"}}), {{{"a.weight", "a.bias"}}});
  EXPECT_EQ(
      Apply("take_from { checkpoint: 'models/m/checkpoints/1' source: 'a' }", 100).code(),
      absl::StatusCode::kResourceExhausted);
  auto read = harness_.store().reads().Open("m", 1);
  ASSERT_TRUE(read.ok());
  auto checkpoint = WorkingCheckpoint::Of(*read);
  ASSERT_TRUE(checkpoint.ok());
  const v1::ModifyCheckpointRequest request;
  EditResources resources(std::make_shared<SessionMemory>(100), *checkpoint, request);
  EXPECT_EQ(resources.Optimizers().status().code(), absl::StatusCode::kResourceExhausted);
  const auto index = OptimizerIndex::Of(*checkpoint, "optimizer", 0, {});
  ASSERT_TRUE(index.ok());
  Report report;
  EXPECT_EQ(FollowOptimizers(v1::ModifyCheckpointRequest::OPTIMIZER_POLICY_RESET,
                             {&*index}, *checkpoint, resources, report)
                .code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(HostileEditTest, AnOptimizerOfMoreParametersThanTensorsIsNotTakenApart) {
  v1::Value optimizer;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "dict_value { entries { key { string_value: 'state' } value { dict_value { } } } "
      "entries { key { string_value: 'param_groups' } value { list_value { values { "
      "dict_value { entries { key { string_value: 'params' } value { list_value { } } } "
      "} } } } } }",
      &optimizer));
  v1::ListValue& ids =
      *FindEntry(
           *FindEntry(optimizer, "param_groups")->mutable_list_value()->mutable_values(0),
           "params")
           ->mutable_list_value();
  for (int64_t id = 0; id < kMaxTensors; ++id) ids.add_values()->set_int_value(id);
  EXPECT_TRUE(CheckOptimizerLayout(optimizer).ok());
  ids.add_values()->set_int_value(kMaxTensors);
  EXPECT_THAT(std::string(CheckOptimizerLayout(optimizer).message()),
              HasSubstr("more than 262144 parameters"));
}

TEST_F(TightMemoryTest, RangesOfRowsOfAnOptimizersStateAreReserved) {
  SaveModule(Net({{"a", "Linear(1, 100)"}}), {{{"a.weight"}}});
  auto read = harness_.store().reads().Open("m", 1);
  ASSERT_TRUE(read.ok());
  auto checkpoint = WorkingCheckpoint::Of(*read);
  ASSERT_TRUE(checkpoint.ok());
  WorkingTensor& weight = *checkpoint->Find("model", "a.weight");
  std::vector<RowRun> rows;
  for (int row = 0; row < 100; row += 2) rows.push_back({row, 1});
  weight.kept_rows = {weight.source, rows};
  weight.shape[0] = static_cast<int64_t>(rows.size());
  auto section = OptimizerSection::Of(*checkpoint, "optimizer");
  ASSERT_TRUE(section.ok());
  ASSERT_TRUE(CanSliceState(weight, "optimizer", section->StateOf(0), *checkpoint));
  const v1::ModifyCheckpointRequest request;
  for (const int64_t bytes : {1000, 10'000}) {
    EditResources resources(std::make_shared<SessionMemory>(bytes), *checkpoint, request);
    absl::flat_hash_set<std::string> sliced;
    const absl::Status s = SliceState(weight, "optimizer", *section->StateOf(0), 0,
                                      *checkpoint, resources, sliced);
    EXPECT_EQ(s.ok(), bytes == 10'000) << s;
  }
}

TEST_F(HostileEditTest, RangesOfRowsThatAreWrittenAreReserved) {
  SaveWith("Linear(1, 2000, bias=False)", {2000, 1});
  ServiceOptions options;
  options.memory_budget_bytes = 500'000;
  const auto service = MakeService(&harness_.store(), options);
  v1::ModifyCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  auto* resize = request.add_edits()->mutable_resize_output();
  resize->set_path("fc");
  resize->set_size(1000);
  for (int row = 0; row < 2000; row += 2) resize->add_keep_rows(row);
  auto session = service->OpenOutbound(absl::StrCat(kStore, "ModifyCheckpoint"),
                                       request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::Status s = ReadToEnd(**session);
  EXPECT_EQ(s.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(s.message()), HasSubstr("needs 320000 bytes of memory"));
}

TEST_F(HostileEditTest, AMeanOfMoreThanOneEditReadsIsRefusedForAllSlicesTogether) {
  SaveZeros(Net({{"c", "ConvTranspose1d(4096, 8, 131073, bias=False)"}}));
  saved_ = 1;
  ExpectRefused(
      Modify("edits { resize_output { path: 'c' size: 9 new_rows: NEW_ROWS_MEAN } }"),
      "is that of 17180000256 bytes, of at most 17179869184");
}

TEST_F(HostileEditTest, AnArchitectureThatIsStoredAgainSaysWhatCannotBeBuilt) {
  SaveWith("Linear(4, 3, bias=False)", {3, 4});
  StoreArchitecture("root { type: 'Net' children { name: 'fc' type: 'Linear' } }");
  const Modified modified = Modify("edits { cast { dtype: DTYPE_FLOAT16 } }");
  ASSERT_TRUE(modified.status.ok()) << modified.status;
  EXPECT_TRUE(
      modified.result.checkpoint().architecture().root().children(0).incomplete());
}

TEST_F(HostileEditTest, AShutdownEndsWhatIsNotCommitted) {
  Save({Parameter("w", {4}, {1, 2, 3, 4})});
  ServiceOptions options;
  options.draining = [] { return true; };
  const auto service = MakeService(&harness_.store(), options);
  v1::ModifyCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  request.add_edits()->mutable_cast()->set_dtype(v1::DTYPE_FLOAT16);
  auto session = service->OpenOutbound(absl::StrCat(kStore, "ModifyCheckpoint"),
                                       request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ((*session)->Next().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(LatestVersion(), 1);
}

TEST_F(HostileEditTest, AnEditThatReadsOrDrawsForLongEndsWhenItsCallerIsMissing) {
  SaveWith("Linear(4, 3, bias=False)", {3, 4});
  auto read = harness_.store().reads().Open("m", 1);
  ASSERT_TRUE(read.ok());
  auto checkpoint = WorkingCheckpoint::Of(*read);
  ASSERT_TRUE(checkpoint.ok());
  const v1::ModifyCheckpointRequest request;
  EditResources resources(std::make_shared<SessionMemory>(0), *checkpoint, request,
                          [] { return absl::CancelledError("gone"); });
  ServiceContext service;
  service.store = &harness_.store();
  Sources sources(&service, *read);
  Report report;
  for (const char* text :
       {"resize_output { path: 'fc' size: 5 new_rows: NEW_ROWS_MEAN }",
        "cast { dtype: DTYPE_FLOAT16 patterns: '.*' }", "drop_keys { patterns: '.*' }",
        "rename_keys { pattern: 'fc(.*)' replacement: 'x\\\\1' }"}) {
    v1::Edit edit;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &edit));
    v1::Edit resolved = edit;
    EditContext context{*checkpoint, report, sources, resources,
                        0,           "kind", false,   resolved};
    EXPECT_EQ(ApplyEdit(edit, context).code(), absl::StatusCode::kCancelled) << text;
  }
}

}  // namespace
}  // namespace modelstore::server::modify
