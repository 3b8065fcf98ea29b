// Casts on load: floating point only, as torch casts, and told in the report.
#include <gmock/gmock.h>

#include <atomic>

#include "client/torch/element_type.h"
#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::At;
using support::Bag;
using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

const torch::ScalarType kFloats[] = {torch::kFloat, torch::kBFloat16, torch::kHalf,
                                     torch::kDouble};

std::string NameOf(torch::ScalarType type) {
  return std::string(DTypeName(*torch_internal::DTypeFromTorch(type)));
}

// Of each floating-point type one tensor of every size of number, and one each of
// the types that a cast would destroy.
StateDict Mixed() {
  StateDict tensors;
  for (const torch::ScalarType type : kFloats) {
    const torch::Tensor values =
        torch::cat({torch::randn({500}, torch::kDouble) * 1e3,
                    torch::randn({500}, torch::kDouble) * 1e-6,
                    torch::tensor({0.0, -0.0, 1e30, -1e30, 65519.9, 65520.0})});
    tensors.emplace_back(NameOf(type), values.to(type));
  }
  tensors.emplace_back("complex64", torch::randn({50}, torch::kComplexFloat));
  tensors.emplace_back("int64", torch::tensor({int64_t{1} << 53, -1L, (1L << 53) + 1}));
  tensors.emplace_back("uint8", torch::arange(256).to(torch::kByte));
  tensors.emplace_back("bool", torch::tensor({true, false, true}));
  return tensors;
}

class CastTest : public ::testing::TestWithParam<torch::ScalarType> {
 protected:
  void Save(const SaveArgs& args) {
    auto saved = SaveCheckpoint(fixture_.client(), "models/m", args);
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  ServerFixture fixture_;
};

std::string TypeName(const ::testing::TestParamInfo<torch::ScalarType>& info) {
  return NameOf(info.param);
}

TEST_P(CastTest, FreshFloatsArriveAsTorchCastsThemAndNothingElseIsTouched) {
  const StateDict stored = Mixed();
  Save({.state_dict = &stored});
  StateDict fresh;
  const LoadArgs args = {.state_dict = &fresh};
  LoadOptions options;
  options.target_dtype = *torch_internal::DTypeFromTorch(GetParam());
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  ASSERT_TRUE(result.status.ok()) << result.status;
  std::vector<std::string> cast;
  for (const auto& [key, tensor] : stored) {
    const bool floats = tensor.is_floating_point();
    support::ExpectSameBits(At(fresh, key), floats ? tensor.to(GetParam()) : tensor, key);
    if (floats && tensor.scalar_type() != GetParam()) cast.push_back(key);
  }
  std::vector<std::string> told;
  for (const LoadReport::DTypeChange& change : result.report.dtype_change) {
    EXPECT_EQ(std::string(DTypeName(change.stored)), change.key);
    EXPECT_EQ(change.wanted, *options.target_dtype);
    told.push_back(change.key);
  }
  EXPECT_EQ(told, cast);
  EXPECT_THAT(result.report.uncast, ElementsAre("complex64", "int64", "uint8", "bool"));
  EXPECT_THAT(
      result.report.ToString(),
      HasSubstr("not cast, as not of floating point (4): complex64, int64, uint8, bool"));
}

TEST_P(CastTest, AModuleTakesFloatsInItsOwnType) {
  const StateDict stored = Mixed();
  Save({.state_dict = &stored});
  StateDict live;
  for (const auto& [key, tensor] : stored) {
    const bool floats = tensor.is_floating_point();
    live.emplace_back(key, torch::zeros_like(floats ? tensor.to(GetParam()) : tensor));
  }
  Bag bag(live);
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, {.module = bag.get()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  for (const auto& [key, tensor] : stored) {
    const bool floats = tensor.is_floating_point();
    support::ExpectSameBits(At(live, key), floats ? tensor.to(GetParam()) : tensor, key);
  }
  EXPECT_EQ(result.report.dtype_change.size(), std::size(kFloats) - 1);
}

INSTANTIATE_TEST_SUITE_P(To, CastTest, ::testing::ValuesIn(kFloats), TypeName);

TEST_F(CastTest, BackFromBfloat16IsExact) {
  const StateDict half = {{"w", torch::randn({1000}).to(torch::kBFloat16)}};
  Save({.state_dict = &half});
  StateDict wide;
  const LoadArgs args = {.state_dict = &wide};
  LoadOptions options;
  options.target_dtype = DType::kFloat32;
  ASSERT_TRUE(
      LoadCheckpoint(fixture_.client(), support::kLatest, args, options).status.ok());
  support::ExpectSameBits(At(wide, "w").to(torch::kBFloat16), half[0].second, "w");
}

TEST_F(CastTest, AModuleOfTheTargetTypeHasTheServerCast) {
  const StateDict stored = {{"w", torch::randn({1 << 20})}};
  Save({.state_dict = &stored});
  const torch::Tensor half = torch::zeros({1 << 20}, torch::kBFloat16);
  Bag bag(StateDict{{"w", half}});
  const LoadArgs args = {.module = bag.get()};
  LoadOptions options;
  options.target_dtype = DType::kBfloat16;
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  ASSERT_TRUE(result.status.ok()) << result.status;
  support::ExpectSameBits(half, stored[0].second.to(torch::kBFloat16), "w");
  ASSERT_EQ(result.report.dtype_change.size(), 1u);
  EXPECT_EQ(result.report.dtype_change[0].stored, DType::kFloat32);
  EXPECT_EQ(result.report.dtype_change[0].wanted, DType::kBfloat16);
}

// The bytes that reach the client in streams.
class Received {
 public:
  explicit Received(ServerFixture& fixture) : fixture_(fixture) {
    fixture_.connection().SetFaults(
        {.tamper = [this](std::string* message) { bytes_ += message->size(); }});
  }
  ~Received() { fixture_.connection().SetFaults({}); }
  size_t bytes() const { return bytes_; }

 private:
  ServerFixture& fixture_;
  std::atomic<size_t> bytes_{0};
};

TEST_F(CastTest, IntoANarrowerModuleTheServerCastsAndTheReportSaysTheSame) {
  const StateDict stored = {{"w", torch::randn({1 << 20})}, {"n", torch::arange(10)}};
  Save({.state_dict = &stored});
  const torch::Tensor half = torch::zeros({1 << 20}, torch::kBFloat16);
  Bag bag(StateDict{{"w", half}, {"n", torch::zeros({10}, torch::kLong)}});
  const Received received(fixture_);
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, {.module = bag.get()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_LT(received.bytes(), (2u << 20) + 50'000) << "4 MiB are stored";
  support::ExpectSameBits(half, stored[0].second.to(torch::kBFloat16), "w");
  ASSERT_EQ(result.report.dtype_change.size(), 1u);
  EXPECT_EQ(result.report.dtype_change[0].stored, DType::kFloat32);
  EXPECT_TRUE(result.report.uncast.empty());
}

#if MODELSTORE_TORCH_HAS_FLOAT8
TEST_F(CastTest, IntoAFloat8ModuleTheClientCasts) {
  const StateDict stored = {{"w", torch::randn({1 << 18})}};
  Save({.state_dict = &stored});
  const torch::Tensor narrow = torch::zeros({1 << 18}).to(c10::ScalarType::Float8_e4m3fn);
  Bag bag(StateDict{{"w", narrow}});
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, {.module = bag.get()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  support::ExpectSameBits(narrow, stored[0].second.to(c10::ScalarType::Float8_e4m3fn),
                          "w");
  ASSERT_EQ(result.report.dtype_change.size(), 1u);
  EXPECT_EQ(result.report.dtype_change[0].wanted, DType::kFloat8E4m3fn);
}
#endif

TEST_F(CastTest, WhereOneTensorOfTheModuleIsWiderTheStoredBytesTravel) {
  const StateDict stored = {{"w", torch::randn({1 << 18})},
                            {"v", torch::randn({1 << 18})}};
  Save({.state_dict = &stored});
  const torch::Tensor half = torch::zeros({1 << 18}, torch::kBFloat16);
  const torch::Tensor same = torch::zeros({1 << 18});
  Bag bag(StateDict{{"w", half}, {"v", same}});
  const Received received(fixture_);
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, {.module = bag.get()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_GT(received.bytes(), 2u << 20);
  support::ExpectSameBits(half, stored[0].second.to(torch::kBFloat16), "w");
  support::ExpectSameBits(same, stored[1].second, "v");
}

// A temperature beside a module in half precision.
TEST_F(CastTest, WhereAnExtraTensorIsWiderItsBitsAreThoseStored) {
  const StateDict stored = {{"w", torch::randn({100})},
                            {"logit_scale", torch::full({}, 4.6052f)}};
  Save({.state_dict = &stored});
  const torch::Tensor half = torch::zeros({100}, torch::kHalf);
  const torch::Tensor scale = torch::zeros({});
  Bag bag(StateDict{{"w", half}});
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest,
                     {.module = bag.get(), .extra_tensors = {{"logit_scale", scale}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  support::ExpectSameBits(scale, stored[1].second, "logit_scale");
  support::ExpectSameBits(half, stored[0].second.to(torch::kHalf), "w");
}

TEST_F(CastTest, ACastThatWouldLoseDigitsOnTheWayIsRefused) {
  const StateDict stored = {{"w", torch::randn({10})}};
  Save({.state_dict = &stored});
  const torch::Tensor live = torch::zeros({10});
  Bag bag(StateDict{{"w", live}});
  const LoadArgs args = {.module = bag.get()};
  LoadOptions options;
  options.target_dtype = DType::kBfloat16;
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("target_dtype would cast w to bfloat16 on its way into float32"));
  EXPECT_TRUE(live.eq(0).all().item<bool>());
}

// Adam's count of steps is a float32 tensor, as in Python: 257 is no bfloat16.
TEST_F(CastTest, AnOptimizersStateIsNeverCast) {
  torch::nn::Linear net(2, 2);
  torch::optim::Adam adam(net->parameters());
  Save({.module = net.get(), .optimizer = &adam});
  const LoadArgs args = {.module = net.get(), .optimizer = &adam};
  LoadOptions options;
  options.target_dtype = DType::kBfloat16;
  const LoadResult result =
      LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("options.target_dtype: would cast an optimizer's state"));
}

}  // namespace
}  // namespace modelstore
