// Loading into a module that is in use: what is refused changes nothing, what is
// written is known to autograd.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::Bag;
using support::BytesOf;
using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LiveModuleTest : public ::testing::Test {
 protected:
  void Save(const StateDict& stored) {
    auto saved = SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  LoadResult Load(const LoadArgs& args, const LoadOptions& options = {}) {
    return LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  }
  ServerFixture fixture_;
};

TEST_F(LiveModuleTest, ARefusalForShapeOrTypeLeavesEveryByte) {
  Save({{"a", torch::ones({4})},
        {"b", torch::ones({2, 3})},
        {"c", torch::full({2}, 1.7)},
        {"d", torch::ones({5})}});
  const StateDict live = {{"a", torch::rand({4})},
                          {"b", torch::rand({3, 2})},
                          {"c", torch::zeros({2}, torch::kLong)},
                          {"d", torch::rand({5})}};
  std::vector<std::string> before;
  for (const auto& [key, tensor] : live) before.push_back(BytesOf(tensor));
  Bag bag(live);
  for (const bool strict : {true, false}) {
    LoadResult result = Load({.module = bag.get(), .strict = strict});
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(result.status.message()),
                HasSubstr("size mismatch for b: [2, 3] in the checkpoint, [3, 2]"));
    EXPECT_THAT(std::string(result.status.message()),
                HasSubstr("dtype change for c: float32 in the checkpoint, int64"));
    ASSERT_EQ(result.report.shape_mismatch.size(), 1u);
    EXPECT_EQ(result.report.shape_mismatch[0].key, "b");
    ASSERT_EQ(result.report.dtype_change.size(), 1u);
    for (size_t i = 0; i < live.size(); ++i) {
      EXPECT_TRUE(BytesOf(live[i].second) == before[i]) << live[i].first;
      EXPECT_EQ(live[i].second._version(), 0) << live[i].first;
    }
  }
}

TEST_F(LiveModuleTest, AShapeMismatchMayBeReportedAndSkipped) {
  Save({{"a", torch::ones({4})}, {"b", torch::ones({2, 3})}});
  const torch::Tensor a = torch::zeros({4}), b = torch::zeros({3, 2});
  Bag bag(StateDict{{"a", a}, {"b", b}});
  LoadResult result = Load({.module = bag.get(), .shape = Policy::kReport});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.report.shape_mismatch.size(), 1u);
  EXPECT_TRUE(a.eq(1).all().item<bool>());
  EXPECT_TRUE(b.eq(0).all().item<bool>());
}

TEST_F(LiveModuleTest, FloatsAreCastAsTorchCastsAndReported) {
  const torch::Tensor wide = torch::randn({1000}, torch::kDouble) * 1e3;
  Save({{"half", wide}, {"same", wide}});
  const torch::Tensor half = torch::zeros({1000}, torch::kHalf);
  const torch::Tensor same = torch::zeros({1000}, torch::kDouble);
  Bag bag(StateDict{{"half", half}, {"same", same}});
  LoadResult result = Load({.module = bag.get()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  support::ExpectSameBits(half, wide.to(torch::kHalf), "half");
  support::ExpectSameBits(same, wide, "same");
  ASSERT_EQ(result.report.dtype_change.size(), 1u);
  EXPECT_EQ(result.report.dtype_change[0].key, "half");
  EXPECT_EQ(result.report.dtype_change[0].stored, DType::kFloat64);
  EXPECT_EQ(result.report.dtype_change[0].wanted, DType::kFloat16);
}

TEST_F(LiveModuleTest, OtherCastsAreDoneOnlyWhereAllowed) {
  Save({{"n", torch::full({2}, 1.7)}});
  const torch::Tensor n = torch::zeros({2}, torch::kLong);
  Bag bag(StateDict{{"n", n}});
  EXPECT_FALSE(Load({.module = bag.get()}).status.ok());
  LoadResult result = Load({.module = bag.get(), .dtype = Policy::kReport});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_TRUE(n.eq(1).all().item<bool>());
}

TEST_F(LiveModuleTest, StridedTargetsKeepTheirStrides) {
  const torch::Tensor stored = torch::rand({2, 3, 4, 5});
  Save({{"last", stored}, {"transposed", stored}});
  const torch::Tensor last =
      torch::zeros({2, 3, 4, 5}).contiguous(at::MemoryFormat::ChannelsLast);
  const torch::Tensor transposed = torch::zeros({5, 4, 3, 2}).permute({3, 2, 1, 0});
  Bag bag(StateDict{{"last", last}, {"transposed", transposed}});
  ASSERT_TRUE(Load({.module = bag.get()}).status.ok());
  EXPECT_TRUE(last.equal(stored));
  EXPECT_TRUE(transposed.equal(stored));
  EXPECT_TRUE(last.is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST_F(LiveModuleTest, AVectorOfOneLoadsIntoAScalarAndNotTheOtherWayRound) {
  Save({{"t", torch::full({1}, 3.0)}});
  const torch::Tensor scalar = torch::zeros({});
  Bag bag(StateDict{{"t", scalar}});
  ASSERT_TRUE(Load({.module = bag.get()}).status.ok());
  EXPECT_EQ(scalar.item<float>(), 3);
  Save({{"t", torch::full({}, 4.0)}});
  Bag vector(StateDict{{"t", torch::zeros({1})}});
  EXPECT_EQ(Load({.module = vector.get()}).report.shape_mismatch.size(), 1u);
}

TEST_F(LiveModuleTest, ABackwardPassThroughOldValuesRaises) {
  for (const bool atomic : {false, true}) {
    torch::nn::Linear source(3, 3), target(3, 3);
    Save(GetStateDict(*source));
    const torch::Tensor input = torch::rand({2, 3}).set_requires_grad(true);
    const torch::Tensor loss = target->forward(input).pow(2).sum();
    ASSERT_TRUE(Load({.module = target.get(), .atomic = atomic}).status.ok());
    EXPECT_GT(target->weight._version(), 0);
    EXPECT_THROW(loss.backward(), c10::Error) << "atomic " << atomic;
  }
}

TEST_F(LiveModuleTest, TiedKeysOfAnUntiedModuleAreBothFilled) {
  const torch::Tensor shared = torch::rand({5});
  Save({{"a", shared}, {"b", shared}});
  const torch::Tensor a = torch::zeros({5}), b = torch::zeros({5});
  Bag bag(StateDict{{"a", a}, {"b", b}});
  ASSERT_TRUE(Load({.module = bag.get()}).status.ok());
  EXPECT_TRUE(a.equal(shared));
  EXPECT_TRUE(b.equal(shared));
}

TEST_F(LiveModuleTest, ATensorThatCannotBeWrittenIsRefusedBeforeTheOthersAre) {
  Save({{"a", torch::ones({3})}, {"b", torch::ones({3})}});
  const torch::Tensor a = torch::zeros({3});
  const torch::Tensor overlapping = torch::zeros({1}).expand({3});
  Bag bag(StateDict{{"a", a}, {"b", overlapping}});
  LoadResult result = Load({.module = bag.get()});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("`b`"));
  EXPECT_TRUE(a.eq(0).all().item<bool>());
}

TEST_F(LiveModuleTest, ASectionThatDoesNotExistIsNamed) {
  Save({{"a", torch::ones({3})}});
  torch::nn::Linear linear(1, 1);
  torch::optim::SGD sgd(linear->parameters(), 0.1);
  LoadResult live = Load({.module = linear.get(), .optimizer = &sgd});
  EXPECT_EQ(live.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(live.status.message()), HasSubstr("`optimizer`"));
  EXPECT_EQ(Load({}, {.selection = {.sections = {"extra"}}}).status.code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace modelstore
