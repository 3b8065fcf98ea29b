// Several optimizers and schedulers in one checkpoint, by name, as a GAN has them.
#include <gmock/gmock.h>

#include "modelstore/modify.h"
#include "tests/client_torch/optimizers.h"

namespace modelstore {
namespace {

using support::BytesOf;
using support::MomentumOf;
using support::OptimizerFixture;
using support::ServerFixture;
using support::SgdOver;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kGanEpochs = 4;

struct GanImpl : torch::nn::Module {
  GanImpl() {
    generator = register_module("generator", torch::nn::Linear(3, 4));
    critic = register_module("critic", torch::nn::Linear(4, 2));
  }
  torch::Tensor Fake() { return torch::tanh(generator(torch::randn({5, 3}))); }
  torch::nn::Linear generator{nullptr}, critic{nullptr};
};
TORCH_MODULE(Gan);

// A training run, as its own process would hold it.
struct GanRun {
  // An epoch of three steps of the critic and of the generator in turn.
  void Epoch() {
    for (int i = 0; i < 3; ++i) {
      critic.zero_grad();
      const torch::Tensor real = torch::randn({5, 4});
      (net->critic(net->Fake().detach()).pow(2).mean() - net->critic(real).mean())
          .backward();
      critic.step();
      generator.zero_grad();
      const torch::Tensor loss = -net->critic(net->Fake()).mean();
      loss.backward();
      generator.step();
      losses.push_back(loss.item<float>());
    }
    generator_schedule.step();
    critic_schedule.step();
  }
  SaveArgs State(int epoch) {
    return {
        .module = net.get(),
        .optimizers = {{"generator", &generator}, {"critic", &critic}},
        .metadata = {.epoch = epoch},
        .rng = true,
        .schedulers = {{"generator", &generator_schedule}, {"critic", &critic_schedule}}};
  }
  LoadArgs Target() {
    return {
        .module = net.get(),
        .optimizers = {{"generator", &generator}, {"critic", &critic}},
        .rng = true,
        .schedulers = {{"generator", &generator_schedule}, {"critic", &critic_schedule}}};
  }
  std::vector<double> Rates() {
    return {generator.param_groups()[0].options().get_lr(),
            critic.param_groups()[0].options().get_lr()};
  }

  Gan net;
  torch::optim::Adam generator{net->generator->parameters(),
                               torch::optim::AdamOptions(0.05).betas({0.5, 0.9})};
  torch::optim::RMSprop critic{net->critic->parameters(),
                               torch::optim::RMSpropOptions(0.02).momentum(0.5)};
  torch::optim::StepLR generator_schedule{generator, /*step_size=*/2, /*gamma=*/0.5};
  torch::optim::StepLR critic_schedule{critic, /*step_size=*/3, /*gamma=*/0.25};
  std::vector<float> losses;
};

TEST(GanResumeTest, StoppedAtAnyEpochAGanContinuesBitForBit) {
  ServerFixture fixture;
  torch::manual_seed(7);
  GanRun whole;
  std::vector<size_t> losses_before;
  for (int epoch = 0; epoch <= kGanEpochs; ++epoch) {
    losses_before.push_back(whole.losses.size());
    auto saved = SaveCheckpoint(fixture.client(), "models/m", whole.State(epoch));
    ASSERT_TRUE(saved.ok()) << saved.status();
    if (epoch < kGanEpochs) whole.Epoch();
  }
  for (int stop = 0; stop <= kGanEpochs; ++stop) {
    SCOPED_TRACE(stop);
    torch::manual_seed(100 + stop);
    GanRun resumed;
    resumed.Epoch();  // state that the load has to replace
    resumed.losses.clear();
    const LoadResult result = LoadCheckpoint(
        fixture.client(), "models/m/checkpoints/" + std::to_string(stop + 1),
        resumed.Target());
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_THAT(result.report.inferred, IsEmpty());
    for (int epoch = stop; epoch < kGanEpochs; ++epoch) resumed.Epoch();
    EXPECT_EQ(resumed.losses,
              std::vector<float>(
                  whole.losses.begin() + static_cast<ptrdiff_t>(losses_before[stop]),
                  whole.losses.end()));
    EXPECT_EQ(resumed.Rates(), whole.Rates());
    // What both optimizers would save is what is stored already.
    auto again = SaveCheckpoint(fixture.client(), "models/m", resumed.State(kGanEpochs));
    ASSERT_TRUE(again.ok()) << again.status();
    auto end = fixture.client().GetCheckpoint("models/m/checkpoints/" +
                                              std::to_string(kGanEpochs + 1));
    ASSERT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(again->manifest_digest, end->manifest_digest);
  }
}

// Two SGDs with momentum, stored as `generator` and `critic`.
class SeveralOptimizersTest : public OptimizerFixture {
 protected:
  SeveralOptimizersTest() {
    Train();
    const auto saved = Save({.module = net_.get(), .optimizers = Both()});
    EXPECT_TRUE(saved.ok()) << saved;
  }
  // A step of both, so that neither is what was saved.
  void Train() {
    net_->zero_grad();
    net_->critic(net_->Fake()).pow(2).sum().backward();
    generator_.step();
    critic_.step();
  }
  std::map<std::string, torch::optim::Optimizer*> Both() {
    return {{"generator", &generator_}, {"critic", &critic_}};
  }
  std::string GeneratorState() {
    return BytesOf(MomentumOf(generator_, net_->generator->weight));
  }
  std::string CriticState() { return BytesOf(MomentumOf(critic_, net_->critic->weight)); }
  static std::string Text(const absl::Status& status) {
    return std::string(status.message());
  }

  Gan net_;
  torch::optim::SGD generator_ = SgdOver(net_->generator->parameters());
  torch::optim::SGD critic_ = SgdOver(net_->critic->parameters());
};

TEST_F(SeveralOptimizersTest, EachHasASectionAndItsParametersByName) {
  const LoadResult result =
      Load({}, {.selection = {.sections = {"optimizer.generator", "optimizer.critic"}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  for (const std::string name : {"generator", "critic"}) {
    const Value& tree = result.sections.at("optimizer." + name).value;
    EXPECT_THAT(tree.ToString(),
                HasSubstr("'param_names': ['" + name + ".weight', '" + name + ".bias']"));
  }
}

TEST_F(SeveralOptimizersTest, ASecondNetworkMayBeAmongTheExtraTensors) {
  StateDict extra;
  for (const auto& [key, tensor] : GetStateDict(*net_->critic)) {
    extra.emplace_back("critic." + key, tensor);
  }
  const absl::Status saved = Save(
      {.module = net_->generator.get(), .extra_tensors = extra, .optimizers = Both()});
  ASSERT_TRUE(saved.ok()) << saved;
  const std::string stored = CriticState();
  Train();
  ASSERT_NE(CriticState(), stored);
  const LoadResult result = Load(
      {.module = net_->generator.get(), .extra_tensors = extra, .optimizers = Both()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(CriticState(), stored);
}

TEST_F(SeveralOptimizersTest, OneThatIsNotAskedForStaysAsItIs) {
  const std::string stored = GeneratorState();
  Train();
  const std::string trained = CriticState();
  const LoadResult result =
      Load({.module = net_.get(), .optimizers = {{"generator", &generator_}}});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(GeneratorState(), stored);
  EXPECT_EQ(CriticState(), trained);
  EXPECT_THAT(result.report.skipped, IsEmpty());
}

TEST_F(SeveralOptimizersTest, OneThatIsNotStoredIsRefusedOrReportedByItsSection) {
  Train();
  const std::string trained = GeneratorState();
  torch::optim::SGD actor = SgdOver({net_->critic->weight});
  torch::optim::StepLR schedule(actor, 3, 0.5);
  LoadArgs args = {.module = net_.get(),
                   .optimizers = {{"generator", &generator_}, {"actor", &actor}},
                   .schedulers = {{"actor", &schedule}}};
  const LoadResult refused = Load(args);
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(refused.status),
              HasSubstr("has no section `optimizer.actor` and no section "
                        "`scheduler.actor`, only `model`, `optimizer.critic`, "
                        "`optimizer.generator`"));
  EXPECT_EQ(GeneratorState(), trained);
  args.absent_sections = Policy::kReport;
  const LoadResult told = Load(args);
  ASSERT_TRUE(told.status.ok()) << told.status;
  EXPECT_THAT(told.report.absent_sections,
              ElementsAre("optimizer.actor", "scheduler.actor"));
  EXPECT_TRUE(actor.state().empty());
  EXPECT_NE(GeneratorState(), trained);
  // The single one is not one of those that have names.
  EXPECT_THAT(Text(Load({.module = net_.get(), .optimizer = &generator_}).status),
              HasSubstr("has no section `optimizer`, only"));
}

TEST_F(SeveralOptimizersTest, IfOneDoesNotFitNoneIsChangedAndTheErrorNamesIt) {
  Train();
  const std::string critic = CriticState(), generator = GeneratorState();
  torch::optim::SGD wrong = SgdOver({net_->generator->weight});
  const LoadResult result =
      Load({.module = net_.get(),
            .optimizers = {{"critic", &critic_}, {"generator", &wrong}}});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(result.status),
              HasSubstr("section `optimizer.generator`: the stored optimizer state does "
                        "not fit: group 0 holds other parameters"));
  EXPECT_THAT(Text(result.status), HasSubstr("generator.bias"));
  EXPECT_EQ(CriticState(), critic) << "its own state fits, and comes first";
  EXPECT_EQ(GeneratorState(), generator);
}

TEST_F(SeveralOptimizersTest, OptionsThatDifferAreReportedOrRefusedForEach) {
  const auto rate = [](torch::optim::SGD& sgd) {
    return sgd.param_groups()[0].options().get_lr();
  };
  torch::optim::SGD other(net_->critic->parameters(),
                          torch::optim::SGDOptions(0.25).momentum(0.9));
  LoadArgs args = {.module = net_.get(),
                   .optimizers = {{"generator", &generator_}, {"critic", &other}},
                   .hyperparameters = Policy::kFail};
  const LoadResult refused = Load(args);
  EXPECT_THAT(Text(refused.status),
              HasSubstr("`optimizer.critic:param_groups/0/lr` is 0.1 in the checkpoint "
                        "and 0.25 here"));
  EXPECT_EQ(rate(other), 0.25);
  args.hyperparameters = Policy::kReport;
  const LoadResult told = Load(args);
  ASSERT_TRUE(told.status.ok()) << told.status;
  ASSERT_EQ(told.report.hyperparameters.size(), 1u);
  EXPECT_EQ(told.report.hyperparameters[0].name, "optimizer.critic:param_groups/0/lr");
  EXPECT_EQ(rate(other), 0.1);
}

TEST_F(SeveralOptimizersTest, AnotherClassIsRefusedForTheOneThatItIsOf) {
  torch::optim::Adam adam(net_->critic->parameters());
  torch::optim::AdamW adamw(net_->critic->parameters());
  net_->zero_grad();
  net_->critic(net_->Fake()).pow(2).sum().backward();
  adam.step();
  ASSERT_TRUE(Save({.module = net_.get(),
                    .optimizers = {{"generator", &generator_}, {"critic", &adam}}})
                  .ok());
  LoadArgs args = {.module = net_.get(),
                   .optimizers = {{"generator", &generator_}, {"critic", &adamw}}};
  EXPECT_THAT(Text(Load(args).status),
              HasSubstr("section `optimizer.critic`: the stored optimizer state does not "
                        "fit: `optimizer.critic` is Adam in the checkpoint and AdamW"));
  args.settings = Policy::kReport;
  const LoadResult told = Load(args);
  ASSERT_TRUE(told.status.ok()) << told.status;
  ASSERT_EQ(told.report.settings.size(), 1u);
  EXPECT_EQ(told.report.settings[0].name, "optimizer.critic");
}

TEST_F(SeveralOptimizersTest, OnlyThoseWithoutNamesGoByPosition) {
  LoadResult stored = Load({}, {.selection = {.sections = {"optimizer.critic"}}});
  ASSERT_TRUE(stored.status.ok()) << stored.status;
  ValueTree& tree = stored.sections.at("optimizer.critic");
  Value groups = *tree.value.Find("param_groups");
  std::get<Value::Sequence>(groups.variant()).values.at(0).Set("param_names", Value());
  tree.value.Set("param_groups", groups);
  SaveArgs args = {.module = net_.get(), .optimizers = {{"generator", &generator_}}};
  args.sections["optimizer.critic"] = tree;
  ASSERT_TRUE(Save(args).ok());
  const LoadResult result = Load({.module = net_.get(), .optimizers = Both()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_THAT(result.report.inferred, ElementsAre("optimizer.critic"));
  EXPECT_THAT(result.report.ToString(), HasSubstr("optimizer.critic"));
}

TEST_F(SeveralOptimizersTest, SchedulersAreComparedEachWithItsOwn) {
  torch::optim::StepLR saved(critic_, /*step_size=*/3, /*gamma=*/0.5);
  ASSERT_TRUE(Save({.module = net_.get(), .schedulers = {{"critic", &saved}}}).ok());
  torch::optim::StepLR other(critic_, 3, 0.25);
  const LoadResult refused =
      Load({.module = net_.get(), .schedulers = {{"critic", &other}}});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(refused.status),
              HasSubstr("`scheduler.critic:gamma` is 0.5 in the checkpoint and 0.25"));
  SaveArgs broken = {.module = net_.get()};
  broken.sections["scheduler.critic"] = {Value::Dict({{"last_epoch", -1}}), {}};
  ASSERT_TRUE(Save(broken).ok());
  EXPECT_THAT(
      Text(Load({.module = net_.get(), .schedulers = {{"critic", &other}}}).status),
      HasSubstr("section `scheduler.critic` holds no count of steps"));
}

TEST_F(SeveralOptimizersTest, AForeignParameterIsRefusedForTheOptimizerThatHoldsIt) {
  torch::optim::SGD foreign = SgdOver({torch::zeros({1})});
  const absl::Status refused =
      Save({.module = net_.get(),
            .optimizers = {{"generator", &generator_}, {"critic", &foreign}}});
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(refused),
              HasSubstr("optimizer.critic: parameter 0 of group 0 (Float [1]) is neither "
                        "in the module nor in extra_tensors"));
}

TEST_F(SeveralOptimizersTest, NamesThatMakeNoSectionAreRefused) {
  const std::pair<const char*, torch::optim::Optimizer*> cases[] = {
      {"", &critic_}, {"a b", &critic_}, {"a/b", &critic_}, {"critic", nullptr}};
  for (const auto& [name, optimizer] : cases) {
    const std::string field = std::string("optimizers[\"") + name + "\"]: ";
    const absl::Status saved =
        Save({.module = net_.get(), .optimizers = {{name, optimizer}}});
    EXPECT_EQ(saved.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(saved), HasSubstr(field));
    const LoadResult loaded =
        Load({.module = net_.get(), .optimizers = {{name, optimizer}}});
    EXPECT_EQ(loaded.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(Text(loaded.status), HasSubstr(field));
  }
  SaveArgs twice = {.module = net_.get(), .optimizers = Both()};
  twice.sections["optimizer.critic"] = {Value::Dict(), {}};
  EXPECT_THAT(Text(Save(twice)), HasSubstr("section `optimizer.critic` is written from"));
}

TEST_F(SeveralOptimizersTest, AReplacedGeneratorLeavesTheStateOfTheCriticsOptimizer) {
  const std::string critic = CriticState();
  const auto made =
      ModifyCheckpoint(fixture_.client(), support::kLatest,
                       EditList().ReplaceModule("generator", "Linear(3, 4)"));
  ASSERT_TRUE(made.ok()) << made.status();
  for (const ModifyResult::Parameter& parameter : made->parameters) {
    using Fate = ModifyResult::Parameter::OptimizerFate;
    const bool replaced = parameter.key.starts_with("generator.");
    EXPECT_EQ(parameter.optimizer_fate, replaced ? Fate::kStateReset : Fate::kStateKept);
    EXPECT_EQ(parameter.optimizer, replaced ? "optimizer.generator" : "optimizer.critic");
  }
  Train();
  ASSERT_NE(CriticState(), critic);
  const LoadResult result = Load({.module = net_.get(), .optimizers = Both()});
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(CriticState(), critic);
  EXPECT_TRUE(generator_.state().empty());
}

}  // namespace
}  // namespace modelstore
