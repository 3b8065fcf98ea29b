// What is saved comes back: every dtype, shape, tree and selection.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::LoadedTensors;
using support::RandomBytes;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::ElementsAre;

TensorInfo Info(const std::string& key, DType dtype, std::vector<int64_t> shape,
                const std::string& section = "model") {
  TensorInfo info;
  info.section = section;
  info.key = key;
  info.dtype = dtype;
  info.shape = std::move(shape);
  return info;
}

TEST(RoundTripTest, EveryDtypeInEveryShapeReadsBackBitForBit) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  for (int number = 1; number <= 20; ++number) {
    const DType dtype = *DTypeFromNumber(number);
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{}, {0}, {3, 0, 2}, {1}, {7}, {2, 3, 5}}) {
      const std::string key =
          absl::StrCat("t.", number, "/", shape.size(), ".", saved.entries().size());
      std::string bytes = RandomBytes(number, *TensorBytes(dtype, shape));
      if (dtype == DType::kBool) {
        for (char& byte : bytes) byte &= 1;
      }
      saved.Add(Info(key, dtype, shape), std::move(bytes));
    }
  }
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(support::Verify(client, info->name, saved), absl::OkStatus());

  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok());
  ASSERT_EQ(plan->tensors().size(), saved.entries().size());
  for (size_t i = 0; i < saved.entries().size(); ++i) {
    EXPECT_EQ(plan->tensors()[i].key, saved.entries()[i].info.key);
    EXPECT_EQ(plan->tensors()[i].dtype, saved.entries()[i].info.dtype);
    EXPECT_EQ(plan->tensors()[i].shape, saved.entries()[i].info.shape);
  }
}

// A store of an earlier release may hold them.
TEST(RoundTripTest, BytesThatAreNoBoolsAreReadAsTrue) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  saved.Add(Info("mask", DType::kUint8, {4}), std::string("\0\1\7\xff", 4));
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  store.connection().SetFaults({.tamper = [](std::string* message) {
    v1::LoadCheckpointResponse response;
    if (!response.ParseFromString(*message) || response.plan().tensors_size() == 0)
      return;
    response.mutable_plan()->mutable_tensors(0)->set_dtype(v1::DTYPE_BOOL);
    *message = response.SerializeAsString();
  }});
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->tensors()[0].dtype, DType::kBool);
  std::string bytes(4, '\0');
  ASSERT_TRUE(plan->Bind(0, {bytes.data(), bytes.size(), nullptr}).ok());
  ASSERT_EQ(plan->Run(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(bytes, std::string("\0\1\1\1", 4));
}

TEST(RoundTripTest, TensorsOfManyChunksReadBack) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  saved.Add(Info("odd", DType::kUint8, {(5 << 20) + 13}), RandomBytes(1, (5 << 20) + 13));
  saved.Add(Info("exact", DType::kFloat32, {1 << 20}), RandomBytes(2, 4 << 20));
  saved.Add(Info("one", DType::kUint8, {1}), RandomBytes(3, 1));
  saved.Add(Info("wide", DType::kComplex128, {1 << 17, 3}), RandomBytes(4, 6 << 20));
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->logical_bytes, saved.total_bytes());
  EXPECT_EQ(support::Verify(client, "models/m/checkpoints/latest", saved),
            absl::OkStatus());
}

TEST(RoundTripTest, MessagesThatArriveInSmallPiecesAreReadWhole) {
  TestStore store;
  Client client = store.NewClient();
  const TensorSet saved({.seed = 5, .tensors = 12, .bytes = 3 << 20});
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  for (const size_t piece : {1021, 4096, 70'000}) {
    store.connection().SetFaults({.fragment_bytes = piece});
    EXPECT_EQ(support::Verify(client, info->name, saved), absl::OkStatus()) << piece;
  }
}

TEST(RoundTripTest, WhatASaveSaysOfItselfComesBack) {
  TestStore store;
  Client client = store.NewClient();
  SaveContent content = TensorSet({.seed = 1, .tensors = 2, .bytes = 1000}).Content();
  content.metadata.epoch = 0;
  content.metadata.step = 1'234'567'890'123;
  content.metadata.loss = 0.1;
  content.metadata.metrics = {{"accuracy", 0.97}};
  content.metadata.labels = {{"run", "a"}};
  content.metadata.description = "first";
  content.framework = "libtorch 1.13.1";
  content.code_commit = "abc";
  auto info = client.SaveAsync("models/m", content, {}).Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->name, "models/m/checkpoints/1");
  auto read = client.GetCheckpoint("models/m/checkpoints/latest");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->version, 1);
  EXPECT_EQ(read->epoch, 0);
  EXPECT_EQ(read->step, 1'234'567'890'123);
  EXPECT_EQ(read->loss, 0.1);
  EXPECT_EQ(read->metrics, content.metadata.metrics);
  EXPECT_EQ(read->labels, content.metadata.labels);
  EXPECT_EQ(read->description, "first");
  EXPECT_EQ(read->framework, "libtorch 1.13.1");
  EXPECT_EQ(read->code_commit, "abc");
  EXPECT_EQ(read->tensor_count, 4);
  EXPECT_EQ(read->manifest_digest, info->manifest_digest);
  EXPECT_FALSE(read->model_uid.empty());
  EXPECT_GT(read->create_time.time_since_epoch().count(), 0);
}

TEST(RoundTripTest, ValueTreesComeBack) {
  TestStore store;
  Client client = store.NewClient();
  Value deep(1);
  for (int i = 0; i < 30; ++i) deep = Value::Dict({{"k", deep}});
  SaveContent content;
  SectionContent extra;
  extra.name = "extra";
  extra.value = Value::Dict(
      {{"lr", 0.1},
       {"big", Value(Value::Variant(Value::BigInt{"1" + std::string(40, '0')}))},
       {"betas", Value::Tuple({0.9, 0.999})},
       {"deep", deep},
       {"state", Value::Tensor("state/a~1b")}});
  extra.metadata = Value::Dict({{"", Value::Dict({{"version", 1}})}});
  content.sections = {extra};
  const std::string bytes = RandomBytes(1, 16);
  TensorView view;
  view.info = Info("state/a~1b", DType::kFloat32, {4}, "extra");
  view.info.size_bytes = 16;
  view.data = bytes.data();
  content.tensors = {view};
  auto info = client.SaveAsync("models/m", content, {}).Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->sections().size(), 1u);
  EXPECT_EQ(plan->sections()[0].name, "extra");
  EXPECT_EQ(plan->sections()[0].value, extra.value)
      << plan->sections()[0].value.ToString();
  EXPECT_EQ(plan->sections()[0].metadata, extra.metadata);
  EXPECT_THAT(info->sections, ElementsAre("extra"));
}

// A plan brings it in slices.
TEST(RoundTripTest, ALargeSectionIsLoadedTogetherWithSmallOnes) {
  TestStore store;
  Client client = store.NewClient();
  SaveContent content;
  content.sections = {{"extra", Value(1), Value()},
                      {"history", Value(std::string(3 << 20, 'h')), Value("metadata")},
                      {"rng", Value(Value::Bytes{RandomBytes(8, 1 << 20)}), Value()},
                      {"scheduler", Value(2), Value()}};
  auto info = client.SaveAsync("models/m", content, {}).Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->sections().size(), content.sections.size());
  for (size_t i = 0; i < content.sections.size(); ++i) {
    EXPECT_EQ(plan->sections()[i].name, content.sections[i].name);
    EXPECT_TRUE(plan->sections()[i].value == content.sections[i].value) << i;
    EXPECT_EQ(plan->sections()[i].metadata, content.sections[i].metadata);
  }
}

TEST(RoundTripTest, ASectionOfAnySizeIsReadByItself) {
  TestStore store;
  const Client client = store.NewClient();
  SaveContent content;
  // One fits in an answer of the server, the other does not.
  content.sections = {{"extra", Value::Dict({{"lr", 0.1}}), Value("metadata")},
                      {"history", Value(std::string(4'900'000, 'h')), Value()}};
  auto info = client.SaveAsync("models/m", content).Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  for (const SectionContent& saved : content.sections) {
    const auto section = client.GetSection("models/m/checkpoints/latest", saved.name);
    ASSERT_TRUE(section.ok()) << section.status();
    EXPECT_EQ(section->name, saved.name);
    EXPECT_TRUE(section->value == saved.value) << saved.name;
    EXPECT_EQ(section->metadata, saved.metadata);
  }
  EXPECT_TRUE(absl::IsNotFound(client.GetSection(info->name, "optimizer").status()));
}

TEST(RoundTripTest, AValueThatNamesNoTensorIsRefusedBeforeItIsSent) {
  TestStore store;
  Client client = store.NewClient();
  SaveContent content;
  content.sections = {
      {"extra", Value::Dict({{"a", Value::List({Value::Tensor("w")})}}), Value()}};
  const int64_t before = store.connection().messages();
  auto saved = client.SaveAsync("models/m", content, {}).Durable(TestDeadline());
  EXPECT_EQ(saved.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(saved.status().message(),
            "saving models/m: section \"extra\": value a/0: no tensor of the section has "
            "the key \"w\"");
  EXPECT_EQ(store.connection().messages(), before);
}

TEST(RoundTripTest, ATiedTensorHasNoBytesOfItsOwn) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  saved.Add(Info("a.weight", DType::kFloat32, {64}), RandomBytes(1, 256));
  SaveContent content = saved.Content();
  TensorView tied = content.tensors[0];
  tied.info.key = "b.weight";
  tied.info.tied_to = "model:a.weight";
  tied.data = nullptr;
  content.tensors.push_back(tied);
  auto info = client.SaveAsync("models/m", content, {}).Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->logical_bytes, 256);
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->tensors().size(), 2u);
  EXPECT_EQ(plan->tensors()[1].tied_to, "model:a.weight");
  EXPECT_EQ(plan->tensors()[1].size_bytes, 0);
  EXPECT_EQ(plan->total_bytes(), 256);
  EXPECT_EQ(plan->tensors()[1].shape, std::vector<int64_t>{64});

  // Alone it comes with its bytes.
  auto alone = client.PlanLoad(info->name, {.selection = {.include = {"b.weight"}}});
  ASSERT_TRUE(alone.ok()) << alone.status();
  ASSERT_EQ(alone->tensors().size(), 1u);
  EXPECT_EQ(alone->tensors()[0].size_bytes, 256);
  auto loaded =
      support::Load(client, info->name, {.selection = {.include = {"b.weight"}}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->at("model:b.weight"), *saved.entries()[0].bytes);
}

TEST(RoundTripTest, UnboundTensorsAreNotFetched) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  for (int i = 0; i < 6; ++i) {
    saved.Add(Info(absl::StrCat("t", i), DType::kUint8, {2 << 20}),
              RandomBytes(i, 2 << 20));
  }
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok());
  std::string bytes(2 << 20, '\0');
  ASSERT_TRUE(plan->Bind(3, {bytes.data(), bytes.size(), nullptr}).ok());
  ASSERT_EQ(plan->Run(TestDeadline()), absl::OkStatus());
  EXPECT_EQ(bytes, *saved.entries()[3].bytes);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(plan->done(i), i == 3);
    EXPECT_EQ(plan->touched(i), i == 3);
  }
  EXPECT_EQ(plan->progress().done_bytes, 2 << 20);
  EXPECT_EQ(plan->progress().total_bytes, 2 << 20);
  EXPECT_LT(plan->progress().transferred_bytes, (2 << 20) + 10'000);
}

TEST(RoundTripTest, OnlyTheRequestedRowsAreLoaded) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  saved.Add(Info("w", DType::kFloat32, {1000, 700}), RandomBytes(1, 2'800'000));
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  auto loaded = support::Load(client, info->name, {.slices = {{"model:w", 123, 987}}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->at("model:w"),
            saved.entries()[0].bytes->substr(123 * 2800, 864 * 2800));
}

TEST(RoundTripTest, FloatingPointIsCastOnRequestAndNothingElse) {
  TestStore store;
  Client client = store.NewClient();
  const float values[] = {1.0f, -2.5f, 65504.0f, 0.0f};
  TensorSet saved;
  saved.Add(Info("f", DType::kFloat32, {4}),
            std::string(reinterpret_cast<const char*>(values), sizeof(values)));
  saved.Add(Info("i", DType::kInt32, {4}), RandomBytes(1, 16));
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  auto loaded = support::Load(client, info->name, {.target_dtype = DType::kFloat64});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  double cast[4];
  ASSERT_EQ(loaded->at("model:f").size(), sizeof(cast));
  std::memcpy(cast, loaded->at("model:f").data(), sizeof(cast));
  EXPECT_THAT(cast, ElementsAre(1.0, -2.5, 65504.0, 0.0));
  EXPECT_EQ(loaded->at("model:i"), *saved.entries()[1].bytes);
}

TEST(RoundTripTest, AnEmptyCheckpointThatIsMeantIsOne) {
  TestStore store;
  Client client = store.NewClient();
  SaveContent content;
  content.metadata.epoch = 3;
  auto info = client.SaveAsync("models/m", content, {.allow_empty = true})
                  .Durable(TestDeadline());
  ASSERT_TRUE(info.ok()) << info.status();
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->Run(TestDeadline()), absl::OkStatus());
}

TEST(RoundTripTest, BuffersThatAreTooSmallAreRefused) {
  TestStore store;
  Client client = store.NewClient();
  TensorSet saved;
  saved.Add(Info("w", DType::kFloat32, {4}), RandomBytes(1, 16));
  auto info = support::Save(client, "models/m", saved);
  ASSERT_TRUE(info.ok()) << info.status();
  auto plan = client.PlanLoad(info->name);
  ASSERT_TRUE(plan.ok());
  char bytes[16];
  EXPECT_EQ(plan->Bind(0, {bytes, 15, nullptr}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan->Bind(0, {nullptr, 16, nullptr}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(plan->Bind(1, {bytes, 16, nullptr}).code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE(plan->done(0));
  EXPECT_FALSE(plan->done(99));
}

TEST(RoundTripTest, WhatDoesNotExistIsNotFound) {
  TestStore store;
  Client client = store.NewClient();
  EXPECT_EQ(client.PlanLoad("models/m/checkpoints/latest").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(client.PlanLoad("models/m").status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client.GetModel("models/m").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client.GetCheckpoint("models/m/checkpoints/1").status().code(),
            absl::StatusCode::kNotFound);
  SaveOptions options;
  options.create_model = false;
  EXPECT_EQ(
      support::Save(client, "models/m", TensorSet({.seed = 1}), options).status().code(),
      absl::StatusCode::kNotFound);
}

TEST(RoundTripTest, ModelsAndCheckpointsAreListedAndDeleted) {
  TestStore store;
  Client client = store.NewClient();
  ASSERT_TRUE(
      client
          .CreateModel("a", {.description = "the first", .labels = {{"team", "garden"}}})
          .ok());
  EXPECT_EQ(client.CreateModel("a").status().code(), absl::StatusCode::kAlreadyExists);
  for (int i = 0; i < 5; ++i) {
    auto info = support::Save(client, "models/b", TensorSet({.seed = 1, .bytes = 1000}));
    ASSERT_TRUE(info.ok()) << info.status();
  }
  auto models = client.ListModels();
  ASSERT_TRUE(models.ok());
  ASSERT_EQ(models->size(), 2u);
  EXPECT_EQ((*models)[0].name, "models/a");
  EXPECT_EQ((*models)[0].description, "the first");
  EXPECT_EQ((*models)[0].labels.at("team"), "garden");
  EXPECT_EQ((*models)[1].latest_version, 5);
  EXPECT_EQ(client.ListModels({.prefix = "b"})->size(), 1u);

  const auto versions = [&](bool newest_first, int limit) {
    std::vector<int64_t> found;
    auto list = client.ListCheckpoints(
        "models/b", {.order_by = newest_first ? "version desc" : "", .limit = limit});
    EXPECT_TRUE(list.ok()) << list.status();
    for (const auto& c : *list) found.push_back(c.version);
    return found;
  };
  EXPECT_THAT(versions(false, 0), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(versions(true, 2), ElementsAre(5, 4));
  EXPECT_EQ(client.DeleteCheckpoint("models/b/checkpoints/latest").code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client.DeleteCheckpoint("models/b/checkpoints/3"), absl::OkStatus());
  EXPECT_THAT(versions(false, 0), ElementsAre(1, 2, 4, 5));
  auto tensors = client.ListTensors("models/b/checkpoints/5");
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->size(), TensorSet({.seed = 1, .bytes = 1000}).entries().size());
  EXPECT_EQ(client.DeleteModel("models/b").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(client.DeleteModel("models/b", {.force = true}), absl::OkStatus());
}

TEST(ListCheckpointsTest, AFilterAndAnOrderChooseAndPagesContinue) {
  TestStore store;
  Client client = store.NewClient();
  for (int i = 1; i <= 5; ++i) {
    SaveContent content = TensorSet({.seed = 1, .bytes = 1000}).Content();
    content.metadata.epoch = i;
    content.metadata.metrics["accuracy"] = i == 2 ? 0.9 : 0.1 * i;
    ASSERT_TRUE(
        client.SaveAsync("models/m", std::move(content)).Durable(TestDeadline()).ok());
  }
  const auto versions = [](const std::vector<CheckpointInfo>& list) {
    std::vector<int64_t> found;
    for (const CheckpointInfo& c : list) found.push_back(c.version);
    return found;
  };
  const ListCheckpointsOptions best = {
      .filter = "epoch >= 2", .order_by = "metrics.accuracy desc", .limit = 3};
  EXPECT_THAT(versions(*client.ListCheckpoints("models/m", best)), ElementsAre(2, 5, 4));
  auto page = client.GetCheckpointPage("models/m", "", best);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_THAT(versions(page->checkpoints), ElementsAre(2, 5, 4));
  page = client.GetCheckpointPage("models/m", page->next_page_token, best);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_THAT(versions(page->checkpoints), ElementsAre(3));
  EXPECT_EQ(page->next_page_token, "");
  for (const ListCheckpointsOptions& bad : {ListCheckpointsOptions{.filter = "epoch >"},
                                            ListCheckpointsOptions{.order_by = "size"},
                                            ListCheckpointsOptions{.limit = -1}}) {
    const absl::Status refused = client.ListCheckpoints("models/m", bad).status();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
  }
}

}  // namespace
}  // namespace modelstore
