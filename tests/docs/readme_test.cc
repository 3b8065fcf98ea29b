// The C++ and the grpcurl commands that README.md and the documents of the client
// show, compiled and run against a real modelstored. A document shows the lines between
// `// [name]` and `// [end]` as they are; check_docs.py compares them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "client/examples/vgg16.h"
#include "modelstore/architecture.h"
#include "modelstore/errors.h"
#include "modelstore/inspect.h"
#include "modelstore/lifecycle.h"
#include "modelstore/modify.h"
#include "modelstore/policy.h"
#include "modelstore/retention.h"
#include "modelstore/testing.h"
#include "modelstore/torch.h"
#include "tests/benchmarks/server_process.h"
#include "tests/docs/reflected_call.h"

namespace {

using modelstore::bench::ServerProcess;

class Readme : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto server = ServerProcess::Start(MODELSTORED, std::string(WORK_FOLDER) + "/readme");
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = new ServerProcess(*std::move(server));
  }
  static void TearDownTestSuite() { delete server_; }

  static inline ServerProcess* server_ = nullptr;
  std::string address = server_ == nullptr ? "" : server_->address();
  torch::nn::Linear net = torch::nn::Linear(4, 3);
  torch::optim::SGD sgd{net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9)};
  double loss = 0.5;

  void Step() {
    torch::Tensor output = net->forward(torch::ones({2, 4})).sum();
    sgd.zero_grad();
    output.backward();
    sgd.step();
  }
};

TEST_F(Readme, ATrainingJobSavesInTheBackgroundAndResumes) {
  Step();
  // [training job]
  auto client = modelstore::Client::Connect(address);
  modelstore::SaveHandle save =
      modelstore::SaveCheckpointAsync(*client, "models/iris",
                                      {.module = net.get(),
                                       .optimizer = &sgd,
                                       .metadata = {.epoch = 4, .loss = loss},
                                       .rng = true});
  absl::Status staged = save.Staged(modelstore::After(std::chrono::seconds(60)));
  auto saved = save.Durable(modelstore::After(std::chrono::minutes(10)));
  modelstore::LoadResult resumed =
      modelstore::LoadCheckpoint(*client, "models/iris/checkpoints/latest",
                                 {.module = net.get(), .optimizer = &sgd, .rng = true});
  // [end]
  ASSERT_TRUE(staged.ok()) << staged;
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->epoch, 4);
  ASSERT_TRUE(resumed.status.ok()) << resumed.status << resumed.report.ToString();
  EXPECT_EQ(resumed.checkpoint.version, saved->version);
}

TEST_F(Readme, AWhatElseTheLoopMustNotLoseComesBack) {
  auto client = modelstore::Client::Connect(address);
  ASSERT_TRUE(client.ok()) << client.status();
  Step();
  // [everything else]
  torch::optim::StepLR schedule(sgd, /*step_size=*/30, /*gamma=*/0.1);
  modelstore::SaveArgs all = {
      .module = net.get(), .optimizer = &sgd, .rng = true, .scheduler = &schedule};
  all.sections["data"] = {modelstore::Value::Dict({{"epoch_seed", 7}, {"taken", 1024}}),
                          {}};
  auto saved = modelstore::SaveCheckpoint(*client, "models/lenet", all);
  modelstore::LoadResult r = modelstore::LoadCheckpoint(
      *client, "models/lenet/checkpoints/latest",
      {.module = net.get(), .optimizer = &sgd, .rng = true, .scheduler = &schedule},
      {.selection = {.sections = {"data"}}});
  absl::StatusOr<int64_t> taken = r.sections["data"].value.GetInt("taken");
  // [end]
  ASSERT_TRUE(saved.ok()) << saved.status();
  ASSERT_TRUE(r.status.ok()) << r.status << r.report.ToString();
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(*taken, 1024);
}

TEST_F(Readme, AGanSavesItsTwoOptimizersByName) {
  struct Gan : torch::nn::Module {
    Gan()
        : generator(register_module("generator", torch::nn::Linear(4, 3))),
          critic(register_module("critic", torch::nn::Linear(3, 1))) {}
    torch::nn::Linear generator, critic;
  };
  auto gan = std::make_shared<Gan>();
  auto connected = modelstore::Client::Connect(address);
  ASSERT_TRUE(connected.ok()) << connected.status();
  modelstore::Client client = *connected;
  // [several optimizers]
  torch::optim::Adam generator(gan->generator->parameters());
  torch::optim::RMSprop critic(gan->critic->parameters());
  torch::optim::StepLR schedule(critic, /*step_size=*/30, /*gamma=*/0.1);
  auto saved = modelstore::SaveCheckpoint(
      client, "models/gan",
      {.module = gan.get(),
       .optimizers = {{"generator", &generator}, {"critic", &critic}},
       .schedulers = {{"critic", &schedule}}});
  modelstore::LoadResult r = modelstore::LoadCheckpoint(
      client, "models/gan/checkpoints/latest",
      {.module = gan.get(),
       .optimizers = {{"generator", &generator}, {"critic", &critic}},
       .schedulers = {{"critic", &schedule}}});
  // [end]
  ASSERT_TRUE(saved.ok()) << saved.status();
  ASSERT_TRUE(r.status.ok()) << r.status << r.report.ToString();
  EXPECT_THAT(saved->sections,
              testing::UnorderedElementsAre("model", "optimizer.generator",
                                            "optimizer.critic", "scheduler.critic"));
}

TEST_F(Readme, BAnInferenceWorkerLoadsFreshTensors) {
  // [inference worker]
  auto client = modelstore::Client::Connect(address);
  modelstore::StateDict weights;
  modelstore::LoadResult r =
      modelstore::LoadCheckpoint(*client, "models/iris/checkpoints/latest",
                                 {.state_dict = &weights}, {.device = "cpu"});
  if (!r.status.ok())
    std::cerr << modelstore::StatusLine(r.status) << "\n" << r.report.ToString();
  // [end]
  ASSERT_TRUE(r.status.ok()) << r.status;
  ASSERT_EQ(weights.size(), 2u);
  EXPECT_EQ(weights[0].first, "weight");
  EXPECT_EQ(weights[0].second.sizes(), torch::IntArrayRef({3, 4}));
  // [placement]
  modelstore::StateDict parts;
  modelstore::LoadResult placed = modelstore::LoadCheckpoint(
      *client, "models/iris/checkpoints/latest",
      {.state_dict = &parts, .placement = {{"embedding.*", "cpu"}}, .fallback = "cpu"},
      {.device = "cuda:0"});
  for (const std::string& why : placed.report.fell_back) std::cout << why << "\n";
  // [end]
  ASSERT_TRUE(placed.status.ok()) << placed.status;
  EXPECT_EQ(placed.report.fell_back.empty(), torch::cuda::is_available());
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_TRUE(parts[0].second.cpu().equal(weights[0].second));
}

TEST_F(Readme, CACheckpointThatFitsInPartIsLoadedAsFarAsItGoes) {
  struct Parallel : torch::nn::Module {
    Parallel() : backbone(register_module("backbone", torch::nn::Linear(4, 3))) {}
    torch::nn::Linear backbone;
  };
  struct Model : torch::nn::Module {
    Model()
        : backbone(register_module("backbone", torch::nn::Linear(4, 3))),
          head(register_module("head", torch::nn::Linear(3, 2))) {}
    torch::nn::Linear backbone, head;
  };
  Parallel trained;
  auto connected = modelstore::Client::Connect(address);
  ASSERT_TRUE(connected.ok()) << connected.status();
  modelstore::StateDict stored;
  for (const auto& [key, tensor] : modelstore::GetStateDict(trained)) {
    stored.emplace_back("module." + key, tensor);
  }
  stored.emplace_back("module.classifier.old_head.weight", torch::zeros({2, 3}));
  ASSERT_TRUE(
      modelstore::SaveCheckpoint(*connected, "models/big", {.state_dict = &stored}).ok());
  auto model = std::make_shared<Model>();
  // [checkpoint that fits in part]
  auto client = modelstore::Client::Connect(address);
  modelstore::LoadResult r =
      modelstore::LoadCheckpoint(*client, "models/big/checkpoints/latest",
                                 {.module = model.get(),
                                  .strict = false,
                                  .strip_prefix = "module.",
                                  .renames = {{R"(classifier\.old_(.*))", R"(\1)"}}});
  std::cout
      << r.report.ToString();  // missing, unexpected, renamed, cast, shapes that differ
  // [end]
  ASSERT_TRUE(r.status.ok()) << r.status;
  EXPECT_THAT(r.report.missing, testing::ElementsAre("head.bias"));
  EXPECT_TRUE(torch::equal(model->backbone->weight, trained.backbone->weight));
  EXPECT_TRUE(torch::equal(model->head->weight, torch::zeros({2, 3})));
}

TEST_F(Readme, CLoadsAPartOfACheckpoint) {
  auto connected = modelstore::Client::Connect(address);
  ASSERT_TRUE(connected.ok()) << connected.status();
  const modelstore::StateDict words = {{"embed.weight", torch::rand({5000, 8})},
                                       {"embed.count", torch::tensor(int64_t{5000})},
                                       {"fc.weight", torch::rand({8, 8})}};
  ASSERT_TRUE(
      modelstore::SaveCheckpoint(*connected, "models/words", {.state_dict = &words})
          .ok());
  // [part]
  auto client = modelstore::Client::Connect(address);
  modelstore::StateDict part;
  modelstore::LoadResult r = modelstore::LoadCheckpoint(
      *client, "models/words/checkpoints/latest", {.state_dict = &part},
      {.selection = {.include = {R"(embed\..*)"}},
       .slices = {{"embed.weight", 1000, 2000}},
       .target_dtype = modelstore::DType::kBfloat16});
  // [end]
  ASSERT_TRUE(r.status.ok()) << r.status;
  ASSERT_EQ(part.size(), 2u);
  EXPECT_TRUE(torch::equal(part[0].second,
                           words[0].second.slice(0, 1000, 2000).to(torch::kBFloat16)));
  EXPECT_TRUE(torch::equal(part[1].second, words[1].second));
  EXPECT_THAT(r.report.uncast, testing::ElementsAre("embed.count"));
}

TEST_F(Readme, DATrainingLoopLeavesItToAPolicyWhenToSave) {
  auto connected = modelstore::Client::Connect(address);
  ASSERT_TRUE(connected.ok()) << connected.status();
  modelstore::Client client = *connected;
  std::optional<modelstore::SaveHandle> save;
  const int64_t epochs = 12;
  const auto train = [&](int64_t epoch) {
    Step();
    loss = 1.0 / static_cast<double>(epoch);
    if (epoch == 8) raise(SIGTERM);
  };
  struct sigaction before {};
  ASSERT_EQ(sigaction(SIGTERM, nullptr, &before), 0);
  // [policy]
  auto policy =
      modelstore::CheckpointPolicy::Create({.every_epochs = 5, .metric = "loss"});
  absl::Status on_preemption = modelstore::RequestFinalSaveOnSignal(SIGTERM);
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    train(epoch);
    const modelstore::CheckpointMetadata state = {.epoch = epoch, .loss = loss};
    const modelstore::SaveReason why = policy->Decide(state);
    if (why == modelstore::SaveReason::kNone) continue;
    save = modelstore::SaveCheckpointAsync(
        client, "models/policy",
        {.module = net.get(), .optimizer = &sgd, .metadata = state});
    if (why == modelstore::SaveReason::kFinal) break;
  }
  auto last = save->Durable(policy->FinalSaveDeadline());
  // [end]
  ASSERT_EQ(sigaction(SIGTERM, &before, nullptr), 0);
  modelstore::WithdrawFinalSave();
  ASSERT_TRUE(on_preemption.ok()) << on_preemption;
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->epoch, 8) << "told to go in epoch 8";
  EXPECT_EQ(last->version, 8) << "the loss improved every time";
}

TEST_F(Readme, EAnEngineerChangesAStoredModel) {
  // [engineer]
  auto client = modelstore::Client::Connect(address);
  auto made =
      modelstore::ModifyCheckpoint(*client, "models/iris/checkpoints/latest",
                                   modelstore::EditList()
                                       .RenameKeys("(weight|bias)", R"(head.\1)")
                                       .SetRequiresGrad(false, {R"(head\.weight)"})
                                       .Cast(modelstore::DType::kBfloat16));
  if (made.ok())
    std::cout << made->checkpoint.name << " stores " << made->stored_bytes << "\n";
  auto history = modelstore::History(*client, "models/iris/checkpoints/latest");
  // [end]
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->stored_bytes, 2 * (12 + 3));
  ASSERT_TRUE(history.ok()) << history.status();
  ASSERT_EQ(history->size(), 2u);
  EXPECT_EQ((*history)[0].edits.size(), 3u);
}

TEST_F(Readme, EAVersionIsVerifiedAfterItIsSavedAndComparedWithTheOneBefore) {
  Step();
  // [verify after saving]
  auto client = modelstore::Client::Connect(address);
  auto saved = modelstore::SaveCheckpoint(*client, "models/iris", {.module = net.get()});
  const auto in_an_hour = modelstore::After(std::chrono::hours(1));  // for both calls
  auto verified = modelstore::VerifyCheckpoint(
      *client, saved->name, {.count_non_finite = true, .deadline = in_an_hour});
  for (const auto& f : verified->findings)
    std::cerr << f.tensor << ": " << f.damage << "\n";
  auto compared =
      modelstore::CompareCheckpoints(*client, "models/iris/checkpoints/1", saved->name,
                                     {.with_norms = true, .deadline = in_an_hour});
  for (const auto& d : compared->differences) {
    if (d.measure)
      std::cout << d.tensor << " moved by " << d.measure->difference_norm << "\n";
  }
  // [end]
  ASSERT_TRUE(saved.ok()) << saved.status();
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_TRUE(verified->intact());
  EXPECT_EQ(verified->verified_tensors, 2);
  EXPECT_EQ(verified->nan_count, 0);
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_FALSE(compared->identical);
  EXPECT_GT(compared->differences.size(), 0u);
}

TEST_F(Readme, AProgramThatDoesNotKnowTheClassRunsAModelByItsName) {
  vgg16::VGG net(vgg16::Options{.channels = 2, .hidden = 8, .pooled = 1, .classes = 5});
  const torch::Tensor images = torch::rand({2, 3, 32, 32});
  // [a model by its name]
  auto client = modelstore::Client::Connect(address);
  auto saved = modelstore::SaveCheckpoint(
      *client, "models/vgg16",
      {.module = net.get(),
       .forward = {{"", {"features", "avgpool", "flatten(1)", "classifier"}}}});
  auto model = modelstore::LoadModel(*client, "models/vgg16/checkpoints/latest");
  std::cout << model->text << "\n";  // as Python's print(model)
  torch::Tensor scores = model->Forward(images);
  // [end]
  ASSERT_TRUE(saved.ok()) << saved.status();
  net->eval();
  EXPECT_TRUE(torch::equal(scores, net(images)));
}

TEST_F(Readme, DBWhatHappensToAVersionAfterItsSave) {
  auto connected = modelstore::Client::Connect(address);
  ASSERT_TRUE(connected.ok()) << connected.status();
  modelstore::Client client = *connected;
  // [life of a version]
  auto moved =
      modelstore::SetAlias(client, "models/iris/aliases/production", 1, {.note = "0.97"});
  auto lease =
      modelstore::AcquireLease(client, "models/iris/checkpoints/production", "serving-7",
                               std::chrono::hours(1));  // until then nobody deletes it
  auto copy = modelstore::CopyCheckpoint(client, lease->checkpoint, "models/released");
  auto watcher = modelstore::ModelWatcher::Open(client, "models/iris");
  auto event = watcher->Next(
      modelstore::After(std::chrono::minutes(1)));  // what is; then what changes
  // [end]
  ASSERT_TRUE(moved.ok()) << moved.status();
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_EQ(lease->checkpoint, "models/iris/checkpoints/1");
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->base_checkpoint, lease->checkpoint);
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->model.aliases.at("production"), 1);
  ASSERT_FALSE(client.DeleteCheckpoint(lease->checkpoint).ok());
}

TEST_F(Readme, DCTheVersionsThatNoRuleKeepsGo) {
  auto connected = modelstore::Client::Connect(address);
  ASSERT_TRUE(connected.ok()) << connected.status();
  const size_t before = connected->ListCheckpoints("models/iris")->size();
  for (int i = 1; i <= 6; ++i) {
    const modelstore::StateDict weights = {{"w", torch::full({4}, i)}};
    ASSERT_TRUE(modelstore::SaveCheckpoint(
                    *connected, "models/iris",
                    {.state_dict = &weights, .metadata = {.loss = 1.0 - 0.1 * i}})
                    .ok());
  }
  // [retention]
  auto client = modelstore::Client::Connect(address);
  absl::Status rules = modelstore::SetRetentionPolicy(
      *client, "models/iris", {.keep_latest = 3, .keep_best = 2, .metric = "loss"});
  auto pruned = modelstore::PruneCheckpoints(*client, "models/iris");
  // [end]
  ASSERT_TRUE(rules.ok()) << rules;
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_GE(pruned->pruned_versions.size(), 3u);
  EXPECT_EQ(pruned->kept_count + static_cast<int64_t>(pruned->pruned_versions.size() +
                                                      pruned->held_versions.size()),
            static_cast<int64_t>(before) + 6);
}

TEST_F(Readme, DDATestOfTrainingCodeNeedsNoServerProcess) {
  const torch::Tensor weight = net->weight.detach().clone();
  // [testing]
  modelstore::TestServer server;
  modelstore::Client client = server.NewClient();
  auto saved = modelstore::SaveCheckpoint(client, "models/iris", {.module = net.get()});
  server.Restart();  // what was acknowledged is still there
  modelstore::LoadResult loaded =
      modelstore::LoadCheckpoint(client, saved->name, {.module = net.get()});
  // [end]
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->version, 1);
  ASSERT_TRUE(loaded.status.ok()) << loaded.status;
  EXPECT_TRUE(net->weight.equal(weight));
}

TEST_F(Readme, EEveryGrpcurlCommandDoesWhatItSays) {
  std::stringstream documents;
  for (const char* document : {"/README.md", "/client/README.md"}) {
    std::ifstream in(std::string(SOURCE_FOLDER) + document);
    ASSERT_TRUE(in) << document;
    documents << in.rdbuf() << "\n";
  }
  int commands = 0;
  for (std::string line; std::getline(documents, line);) {
    if (line.rfind("grpcurl ", 0) != 0) continue;
    SCOPED_TRACE(line);
    ++commands;
    if (line.find(" list") != std::string::npos) {
      auto services = modelstore::docs::ListServices(address);
      ASSERT_TRUE(services.ok()) << services.status();
      EXPECT_THAT(*services, testing::HasSubstr("modelstore.v1.ModelStore"));
      EXPECT_THAT(*services, testing::HasSubstr("modelstore.v1.CheckpointTransfer"));
      continue;
    }
    auto command = modelstore::docs::ParseGrpcurl(line);
    ASSERT_TRUE(command.ok()) << command.status();
    auto answer = modelstore::docs::CallByReflection(*command, address);
    ASSERT_TRUE(answer.ok()) << answer.status();
    if (line.find("ListCheckpoints") != std::string::npos) {
      EXPECT_THAT(*answer, testing::HasSubstr("models/iris/checkpoints/1"));
    }
  }
  EXPECT_GE(commands, 6);
}

TEST_F(Readme, FAWrongMethodIsRefusedByTheStandInForGrpcurl) {
  EXPECT_FALSE(modelstore::docs::ParseGrpcurl("grpcurl -plaintext localhost:1").ok());
  auto command = modelstore::docs::ParseGrpcurl(
      "grpcurl -plaintext localhost:7070 modelstore.v1.ModelStore/NoSuchMethod");
  ASSERT_TRUE(command.ok());
  EXPECT_FALSE(modelstore::docs::CallByReflection(*command, address).ok());
}

}  // namespace
