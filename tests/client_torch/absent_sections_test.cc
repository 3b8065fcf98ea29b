// What is asked for and not in the checkpoint is never passed over in silence.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class AbsentSectionsTest : public ::testing::Test {
 protected:
  AbsentSectionsTest()
      : sgd_(net_->parameters(), torch::optim::SGDOptions(1).momentum(0.9)),
        schedule_(sgd_, 3, 0.5) {
    torch::nn::Linear saved(2, 2);
    weight_ = saved->weight.detach().clone();
    EXPECT_TRUE(
        SaveCheckpoint(fixture_.client(), "models/m", {.module = saved.get()}).ok());
  }
  LoadResult Load(const LoadArgs& args, const LoadOptions& options = {}) {
    return LoadCheckpoint(fixture_.client(), support::kLatest, args, options);
  }
  ServerFixture fixture_;
  torch::nn::Linear net_{2, 2};
  torch::optim::SGD sgd_;
  torch::optim::StepLR schedule_;
  torch::Tensor weight_;
};

TEST_F(AbsentSectionsTest, EachIsRefusedByNameAndNothingChanges) {
  const torch::Tensor before = net_->weight.detach().clone();
  const std::string generator = support::BytesOf(GetCpuRngState());
  const std::pair<const char*, LoadArgs> cases[] = {
      {"`optimizer`", {.module = net_.get(), .optimizer = &sgd_}},
      {"`rng`", {.module = net_.get(), .rng = true}},
      {"`scheduler`", {.module = net_.get(), .scheduler = &schedule_}}};
  for (const auto& [name, args] : cases) {
    const LoadResult result = Load(args);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition) << name;
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(name));
    EXPECT_THAT(result.report.absent_sections.size(), 1u);
  }
  const LoadResult named =
      Load({.module = net_.get()}, {.selection = {.sections = {"data"}}});
  EXPECT_EQ(named.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(named.status.message()), HasSubstr("`data`"));
  EXPECT_TRUE(net_->weight.equal(before));
  EXPECT_TRUE(support::BytesOf(GetCpuRngState()) == generator);
}

TEST_F(AbsentSectionsTest, AllAreReportedAtOnce) {
  const LoadResult result = Load(
      {.module = net_.get(), .optimizer = &sgd_, .rng = true, .scheduler = &schedule_},
      {.selection = {.sections = {"data"}}});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(result.report.absent_sections,
              ElementsAre("data", "optimizer", "rng", "scheduler"));
  EXPECT_THAT(result.report.ToString(), HasSubstr("data, optimizer, rng, scheduler"));
}

TEST_F(AbsentSectionsTest, WhereTheLoadContinuesTheRestIsLoadedAndTheseStay) {
  for (const Policy policy : {Policy::kReport, Policy::kIgnore}) {
    const std::string generator = support::BytesOf(GetCpuRngState());
    net_->zero_grad();
    net_->forward(torch::ones({1, 2})).sum().backward();
    sgd_.step();
    const size_t states = sgd_.state().size();
    ASSERT_GT(states, 0u);
    const LoadResult result = Load({.module = net_.get(),
                                    .optimizer = &sgd_,
                                    .rng = true,
                                    .scheduler = &schedule_,
                                    .absent_sections = policy},
                                   {.selection = {.sections = {"data"}}});
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(net_->weight.equal(weight_));
    EXPECT_EQ(sgd_.state().size(), states);
    EXPECT_TRUE(support::BytesOf(GetCpuRngState()) == generator);
    EXPECT_TRUE(result.sections.empty());
    EXPECT_EQ(result.report.absent_sections.size(), policy == Policy::kReport ? 4u : 0u);
  }
}

TEST_F(AbsentSectionsTest, IfNothingIsLeftNothingIsLoaded) {
  const LoadResult result =
      Load({.optimizer = &sgd_, .absent_sections = Policy::kReport});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.absent_sections, ElementsAre("optimizer"));
  EXPECT_THAT(result.sections, IsEmpty());
}

TEST_F(AbsentSectionsTest, AModelThatDoesNotExistStaysAsItIs) {
  SaveArgs args;
  args.sections["data"] = {Value::Dict({{"epoch", 3}}), {}};
  ASSERT_TRUE(SaveCheckpoint(fixture_.client(), "models/m", args).ok());
  StateDict kept = {{"a", torch::ones({2})}};
  EXPECT_EQ(Load({.state_dict = &kept}).status.code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(
      Load({.state_dict = &kept, .absent_sections = Policy::kReport}).status.ok());
  EXPECT_EQ(kept.size(), 1u);
  const torch::Tensor before = net_->weight.detach().clone();
  const LoadResult result =
      Load({.module = net_.get(), .absent_sections = Policy::kReport},
           {.selection = {.sections = {"data"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.absent_sections, ElementsAre("model"));
  EXPECT_EQ(result.sections.size(), 1u);
  EXPECT_TRUE(net_->weight.equal(before));
}

}  // namespace
}  // namespace modelstore
