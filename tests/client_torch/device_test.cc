// Loads to devices and saves from them, end to end, over devices that are none.
#include <gmock/gmock.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <set>

#include "client/torch/tensor_views.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"
#include "tests/gpu/fake_device.h"

namespace modelstore {
namespace {

using support::At;
using support::Bag;
using support::FakeRuntime;
using support::kLatest;
using support::ServerFixture;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Deadline InAMinute() { return After(std::chrono::seconds(60)); }

StateDict Values() {
  StateDict values;
  for (int i = 0; i < 4; ++i) {
    values.emplace_back("features_" + std::to_string(i),
                        support::RandomBits({300'000 + i}, torch::kFloat));
    values.emplace_back("head_" + std::to_string(i),
                        support::RandomBits({7 + i}, torch::kHalf));
  }
  values.emplace_back("empty", torch::empty({0, 3}));
  return values;
}

int64_t BytesIn(const StateDict& values) {
  int64_t bytes = 0;
  for (const auto& [key, tensor] : values) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

class DeviceTest : public ::testing::Test {
 protected:
  DeviceTest() : in_place_of_torch_(&fake_) {}

  void SaveValues() {
    ASSERT_TRUE(
        SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &values_}).ok());
  }
  LoadResult Load(LoadArgs args, const LoadOptions& options = {}) {
    loaded_.clear();
    args.state_dict = &loaded_;
    return LoadCheckpoint(fixture_.client(), kLatest, args, options);
  }
  void ExpectValues(const StateDict& got) {
    for (const auto& [key, tensor] : values_) {
      support::ExpectSameBits(At(got, key), tensor, key);
    }
  }
  // A tensor of the device with the bits of `value`.
  torch::Tensor OnDevice(int device, const torch::Tensor& value) {
    torch::Tensor tensor = fake_.Empty(value.sizes(), value.scalar_type(), device);
    std::memcpy(tensor.data_ptr(), value.data_ptr(), value.nbytes());
    return tensor;
  }

  FakeRuntime fake_{3};
  device::ScopedRuntime in_place_of_torch_;
  ServerFixture fixture_;
  const StateDict values_ = Values();
  StateDict loaded_;
};

TEST_F(DeviceTest, FreshTensorsComeToTheDeviceNamedAndNoOtherIsTouched) {
  SaveValues();
  LoadResult result = Load({}, {.device = "cuda:1"});
  ASSERT_TRUE(result.status.ok()) << result.status;
  for (const auto& [key, tensor] : loaded_) EXPECT_EQ(fake_.DeviceOf(tensor), 1) << key;
  ExpectValues(loaded_);
  EXPECT_EQ(fake_.touched(), std::set<int>{1});
  EXPECT_EQ(fake_.live_pinned(), 0) << "page-locked memory is left";
  EXPECT_GE(fake_.live_bytes(1), BytesIn(values_));
  loaded_.clear();
  EXPECT_EQ(fake_.live_bytes(1), 0);
}

TEST_F(DeviceTest, ThePlacementRuleThatMatchesFirstDecides) {
  SaveValues();
  LoadResult result = Load({.placement = {{"features_[01]", "cuda:2"},
                                          {"model:head.*", "cpu"},
                                          {"features.*", "cuda:1"},
                                          {"other:features.*", "cpu"}}},
                           {.device = "cuda"});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const auto device_of = [&](const char* key) {
    return fake_.DeviceOf(At(loaded_, key));
  };
  EXPECT_EQ(device_of("features_0"), 2);
  EXPECT_EQ(device_of("features_1"), 2);
  EXPECT_EQ(device_of("features_2"), 1);
  EXPECT_EQ(device_of("head_0"), -1);
  EXPECT_EQ(device_of("empty"), 0);
  EXPECT_THAT(result.report.unused_placement, ElementsAre("other:features.*"));
  EXPECT_THAT(result.report.ToString(), HasSubstr("other:features.*"));
  ExpectValues(loaded_);
}

TEST_F(DeviceTest, AModuleOnADeviceIsLoadedThereWhateverTheArgumentsSay) {
  SaveValues();
  StateDict live;
  for (const auto& [key, tensor] : values_) {
    live.emplace_back(key, OnDevice(1, torch::zeros_like(tensor)));
  }
  Bag bag(live);
  const int64_t allocated = fake_.allocations();
  LoadResult result = LoadCheckpoint(fixture_.client(), kLatest, {.module = bag.get()},
                                     {.device = "cuda:2"});
  ASSERT_TRUE(result.status.ok()) << result.status;
  ExpectValues(live);
  EXPECT_EQ(fake_.allocations(), allocated) << "memory of the device was taken";
  EXPECT_GT(fake_.copies(), 0);
  EXPECT_EQ(fake_.touched(), std::set<int>{1});
  EXPECT_GT(At(live, "features_0")._version(), 0);
}

TEST_F(DeviceTest, OptimizerStateGoesWhereItsParameterIs) {
  const auto sgd_of = [](torch::nn::Linear& net) {
    return torch::optim::SGD(net->parameters(),
                             torch::optim::SGDOptions(0.1).momentum(0.9));
  };
  const auto momentum = [](torch::optim::SGD& sgd) {
    std::map<int64_t, torch::Tensor> by_dim;  // The weight's has two, the bias's one.
    for (const auto& [key, state] : sgd.state()) {
      const auto& of = static_cast<const torch::optim::SGDParamState&>(*state);
      by_dim[of.momentum_buffer().dim()] = of.momentum_buffer();
    }
    return by_dim;
  };
  torch::nn::Linear trained(6, 4), live(6, 4);
  torch::optim::SGD optimizer = sgd_of(trained);
  trained(torch::rand({2, 6})).sum().backward();
  optimizer.step();
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m",
                             {.module = trained.get(), .optimizer = &optimizer})
                  .ok());
  for (torch::Tensor& parameter : live->parameters()) {
    parameter.set_data(OnDevice(1, torch::zeros_like(parameter)));
  }
  torch::optim::SGD resumed = sgd_of(live);
  LoadResult result = LoadCheckpoint(fixture_.client(), kLatest,
                                     {.module = live.get(), .optimizer = &resumed});
  ASSERT_TRUE(result.status.ok()) << result.status;
  const auto want = momentum(optimizer), got = momentum(resumed);
  ASSERT_EQ(got.size(), 2u);
  for (const auto& [dim, buffer] : got) {
    EXPECT_EQ(fake_.DeviceOf(buffer), 1);
    support::ExpectSameBits(buffer, want.at(dim), "momentum");
  }
  support::ExpectSameBits(live->weight, trained->weight, "weight");
  EXPECT_EQ(fake_.touched(), std::set<int>{1});
}

TEST_F(DeviceTest, TooLittleMemoryIsReportedWithBothFiguresBeforeAnythingIsAllocated) {
  SaveValues();
  fake_.SetCapacity(1, 1'000'000);
  const absl::Status status = Load({}, {.device = "cuda:1"}).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(
      std::string(status.message()),
      ::testing::ContainsRegex(
          "needs 48[0-9]+ bytes of memory on cuda:1, 1000000 of 1000000 are free"));
  EXPECT_EQ(fake_.allocations(), 0);
}

TEST_F(DeviceTest, WithFallbackTheCpuTakesWhatDoesNotFitAndTheReportSaysSo) {
  SaveValues();
  fake_.SetCapacity(1, 1'000'000);
  LoadResult result = Load({.placement = {{"head.*", "cuda:2"}}, .fallback = "cpu"},
                           {.device = "cuda:1"});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(fake_.DeviceOf(At(loaded_, "features_0")), -1);
  EXPECT_EQ(fake_.DeviceOf(At(loaded_, "head_0")), 2) << "it has room";
  ExpectValues(loaded_);
  ASSERT_THAT(result.report.fell_back, SizeIs(1));
  EXPECT_THAT(result.report.fell_back[0],
              AllOf(HasSubstr("cuda:1"), HasSubstr("1000000 are free")));
  EXPECT_THAT(result.report.ToString(), HasSubstr("on the cpu instead: "));
}

TEST_F(DeviceTest, WithFallbackADeviceThatBreaksItsWordGivesBackWhatItGave) {
  SaveValues();
  fake_.SetFaults({.allocation = 4});  // memory in pieces: the figures were enough
  EXPECT_EQ(Load({}, {.device = "cuda:1"}).status.code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fake_.live_bytes(1), 0);
  fake_.SetFaults({.allocation = 4});
  LoadResult result = Load({.fallback = "cpu"}, {.device = "cuda:1"});
  ASSERT_TRUE(result.status.ok()) << result.status;
  ExpectValues(loaded_);
  EXPECT_EQ(fake_.live_bytes(1), 0);
  EXPECT_THAT(result.report.fell_back, SizeIs(1));
}

TEST_F(DeviceTest, WithFallbackAMissingDeviceIsTheCpu) {
  SaveValues();
  EXPECT_EQ(Load({}, {.device = "cuda:3"}).status.code(),
            absl::StatusCode::kFailedPrecondition);
  LoadResult result = Load({.fallback = "cpu"}, {.device = "cuda:3"});
  ASSERT_TRUE(result.status.ok()) << result.status;
  ExpectValues(loaded_);
  EXPECT_THAT(result.report.fell_back, Contains(HasSubstr("cuda:3")));
  EXPECT_THAT(fake_.touched(), IsEmpty());
}

TEST_F(DeviceTest, WhatIsNoDeviceOrNoPatternIsRefusedByItsField) {
  SaveValues();
  const auto told = [&](LoadArgs args, const LoadOptions& options) {
    const absl::Status status = Load(std::move(args), options).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(told({}, {.device = "tpu"}),
              AllOf(HasSubstr("device"), HasSubstr("`tpu`")));
  EXPECT_THAT(told({.placement = {{"a", "cpu"}, {"b", "cuda:x"}}}, {}),
              HasSubstr("placement[1]"));
  EXPECT_THAT(told({.placement = {{"(", "cpu"}}}, {}), HasSubstr("placement[0]"));
  EXPECT_THAT(told({.fallback = "cuda"}, {}), HasSubstr("fallback"));
}

TEST_F(DeviceTest, TiedTensorsStayTiedOnTheDevice) {
  const torch::Tensor shared = torch::rand({1000});
  const StateDict stored = {{"a", shared}, {"b", shared}};
  ASSERT_TRUE(
      SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored}).ok());
  ASSERT_TRUE(Load({}, {.device = "cuda:1"}).status.ok());
  EXPECT_EQ(At(loaded_, "a").data_ptr(), At(loaded_, "b").data_ptr());
  EXPECT_EQ(fake_.DeviceOf(At(loaded_, "b")), 1);
  EXPECT_EQ(fake_.live_bytes(1), 4000);
}

TEST_F(DeviceTest, ADeviceThatFailsEndsTheLoadAndTheReportIsTrue) {
  SaveValues();
  StateDict live;
  for (const auto& [key, tensor] : values_) {
    live.emplace_back(key, OnDevice(1, torch::zeros_like(tensor)));
  }
  Bag bag(live);
  fake_.SetFaults({.copy = 3});
  LoadResult result =
      LoadCheckpoint(fixture_.client(), kLatest, {.module = bag.get(), .strict = false});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kInternal) << result.status;
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("copy failed"));
  EXPECT_THAT(result.report.loaded, ::testing::Not(Contains("features_0")));
  for (const std::string& key : result.report.untouched) {
    EXPECT_EQ(At(live, key).ne(0).sum().item<int64_t>(), 0) << key;
  }
  EXPECT_EQ(fake_.live_pinned(), 0);
}

TEST_F(DeviceTest, AThousandLoadsThatFailHalfWayLeaveNoDeviceMemoryBehind) {
  ServerFixture fixture(ServerFixture::NoRetries());
  StateDict small;
  for (int i = 0; i < 8; ++i) {
    small.emplace_back("t" + std::to_string(i), torch::rand({40'000 + i}));
  }
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &small}).ok());
  std::mt19937_64 random(23);
  int failed = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto one_of = [&](uint64_t n) {
      return static_cast<int64_t>(1 + random() % n);
    };
    if (i % 3 == 0)
      fixture.connection().SetFaults({.cut_at = 1 + one_of(4), .cut_every = 1});
    if (i % 3 == 1) fake_.SetFaults({.copy = one_of(8)});
    if (i % 3 == 2) fake_.SetFaults({.allocation = one_of(8)});
    StateDict loaded;
    failed += !LoadCheckpoint(fixture.client(), kLatest, {.state_dict = &loaded},
                              {.device = "cuda:1"})
                   .status.ok();
    fixture.connection().SetFaults({});
    fake_.SetFaults({});
    loaded.clear();
    ASSERT_EQ(fake_.live_bytes(1), 0) << "after load " << i;
    ASSERT_EQ(fake_.live_pinned(), 0) << "after load " << i;
  }
  EXPECT_GT(failed, 700);
  EXPECT_GT(fake_.copies(), 1000) << "they failed before anything was under way";
  std::printf("loads that failed half way: %d of 1000\n", failed);
}

TEST_F(DeviceTest, ASaveStoresWhatTheQueuedWorkMakesAndTrainingContinues) {
  torch::Tensor weight = OnDevice(2, torch::full({500'000}, 1.0F));
  const StateDict live = {{"weight", weight}, {"on_cpu", torch::full({10}, 5.0F)}};
  fake_.Queue(2, [weight]() mutable { weight.fill_(2); });
  SaveHandle handle = SaveCheckpointAsync(fixture_.client(), "models/m",
                                          {.state_dict = &live, .rng = true});
  // The generator moves on at once; the tensor after Staged().
  fake_.SetRngState(2, torch::zeros({16}, torch::kByte));
  ASSERT_TRUE(handle.Staged(InAMinute()).ok());
  weight.fill_(3);
  ASSERT_TRUE(handle.Durable(InAMinute()).ok());
  EXPECT_EQ(fake_.live_pinned(), 0);
  EXPECT_EQ(fake_.touched(), std::set<int>{2});

  LoadResult result = Load({.rng = true});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(At(loaded_, "weight").eq(2).all().item<bool>());
  EXPECT_TRUE(At(loaded_, "on_cpu").eq(5).all().item<bool>());
  EXPECT_TRUE(fake_.RngState(2).eq(12).all().item<bool>()) << "not that of the call";
}

TEST_F(DeviceTest, OnlyTensorsAtRestAreSavedWithoutACopy) {
  const torch::Tensor here = torch::zeros({4});
  const torch::Tensor there = OnDevice(1, here);
  for (const bool at_rest : {false, true}) {
    torch_internal::ViewBuilder views(at_rest);
    ASSERT_TRUE(views.Add("model", "here", here).ok());
    ASSERT_TRUE(views.Add("model", "there", there).ok());
    for (const TensorView& view : views.Take()) {
      EXPECT_EQ(view.immutable, at_rest) << view.info.key;
    }
  }
}

TEST_F(DeviceTest, GeneratorsOfDevicesThatAreNotHereAreReportedAsSkipped) {
  const StateDict live = {{"w", OnDevice(2, torch::rand({10}))}};
  ASSERT_TRUE(
      SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &live, .rng = true})
          .ok());
  FakeRuntime smaller(1);
  const device::ScopedRuntime one_device(&smaller);
  LoadResult result = Load({.rng = true});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, Contains("rng:cuda/2"));
  EXPECT_TRUE(smaller.RngState(0).eq(10).all().item<bool>());
}

TEST_F(DeviceTest, AGeneratorOfADeviceInUseThatIsNotStoredIsReportedAsSkipped) {
  const StateDict on_cpu = {{"w", torch::rand({10})}};
  ASSERT_TRUE(
      SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &on_cpu, .rng = true})
          .ok());
  support::Bag bag(StateDict{{"w", OnDevice(1, torch::zeros({10}))}});
  const LoadResult result = LoadCheckpoint(fixture_.client(), support::kLatest,
                                           {.module = bag.get(), .rng = true});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.skipped, Contains("rng:cuda/1"));
}

TEST_F(DeviceTest, ASaveLargerThanItsStagingIsStreamedThroughLittlePinnedMemory) {
  constexpr int64_t kElements = 16 << 20;  // 64 MiB
  torch::Tensor weight = OnDevice(1, torch::arange(kElements, torch::kFloat32));
  const StateDict live = {{"weight", weight}, {"on_cpu", torch::full({10}, 5.0F)}};
  const SaveArgs args = {.state_dict = &live};
  const SaveOptions options = {.max_staging_bytes = 1'000'000};
  fake_.Queue(1, [weight]() mutable { weight[7] = -1; });
  SaveHandle handle = SaveCheckpointAsync(fixture_.client(), "models/m", args, options);
  ASSERT_TRUE(handle.Staged(InAMinute()).ok());
  weight[8] = -2;
  ASSERT_TRUE(handle.Durable(InAMinute()).ok());
  EXPECT_EQ(fake_.live_pinned(), 0);
  EXPECT_LE(fake_.max_pinned(), 3 * (int64_t{9} << 20)) << "for three streams";
  LoadResult result = Load({});
  ASSERT_TRUE(result.status.ok()) << result.status;
  torch::Tensor wanted = torch::arange(kElements, torch::kFloat32);
  wanted[7] = -1;
  support::ExpectSameBits(At(loaded_, "weight"), wanted, "weight");
  EXPECT_TRUE(At(loaded_, "on_cpu").eq(5).all().item<bool>());

  // Of the next version only what has changed is sent: one chunk of 512 KiB.
  SaveHandle next = SaveCheckpointAsync(fixture_.client(), "models/m", args, options);
  ASSERT_TRUE(next.Durable(InAMinute()).ok());
  EXPECT_LT(next.progress().transferred_bytes, 600'000);
  result = Load({});
  ASSERT_TRUE(result.status.ok()) << result.status;
  wanted[8] = -2;
  support::ExpectSameBits(At(loaded_, "weight"), wanted, "weight");
}

TEST_F(DeviceTest, AStreamedSaveWhoseCopyFailsSaysSoAndStoresNothing) {
  const StateDict live = {{"w", OnDevice(0, torch::rand({16 << 20}))}};
  const SaveArgs args = {.state_dict = &live};
  const SaveOptions options = {.max_staging_bytes = 0};
  fake_.SetFaults({.copy = 50});
  const absl::Status status =
      SaveCheckpoint(fixture_.client(), "models/m", args, options).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("copy failed")) << status;
  EXPECT_FALSE(fixture_.client().GetCheckpoint(kLatest).ok());
  EXPECT_EQ(fake_.live_pinned(), 0);
}

TEST_F(DeviceTest, AFailedCopyFailsTheSaveAndNothingIsStored) {
  const StateDict live = {{"w", OnDevice(0, torch::rand({500'000}))}};
  fake_.SetFaults({.copy = 2});
  SaveHandle handle =
      SaveCheckpointAsync(fixture_.client(), "models/m", {.state_dict = &live});
  EXPECT_FALSE(handle.Staged(InAMinute()).ok());
  EXPECT_THAT(std::string(handle.Durable(InAMinute()).status().message()),
              HasSubstr("copy failed"));
  EXPECT_FALSE(fixture_.client().GetModel("models/m").ok());
  EXPECT_EQ(fake_.live_pinned(), 0);
}

}  // namespace
}  // namespace modelstore
