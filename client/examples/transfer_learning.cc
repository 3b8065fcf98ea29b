// Transfer learning with models from the store. Loads VGG16 by name, replaces its last
// layer on the server, and fine-tunes it here with frozen features. Each epoch is saved
// as a version that stores only what has changed. Then compares two versions, averages
// the last three, and prints the history of the model.
//
//   save_vgg16 models/vgg16
//   transfer_learning models/vgg16 --classes 10
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "modelstore/architecture.h"
#include "modelstore/errors.h"
#include "modelstore/inspect.h"
#include "modelstore/modify.h"
#include "modelstore/torch.h"

namespace {

struct Flags {
  std::string server = "127.0.0.1:7070";
  std::string model = "models/vgg16";
  int64_t classes = 10;
  int64_t image = 224;
  int epochs = 3;
};

// Makes a version with a new last layer on the server and returns its name. The other
// tensors share the stored bytes of the original.
absl::StatusOr<std::string> ReplaceHead(const modelstore::Client& client,
                                        const Flags& flags) {
  auto stored = modelstore::LoadModel(client, flags.model + "/checkpoints/latest");
  if (!stored.ok()) return stored.status();
  // The new layer has the same inputs as the old one.
  const int64_t features =
      stored->module->named_parameters()["classifier.6.weight"].size(1);
  auto made = modelstore::ModifyCheckpoint(
      client, stored->checkpoint.name,
      modelstore::EditList()
          .ReplaceModule("classifier.6", "Linear(" + std::to_string(features) + ", " +
                                             std::to_string(flags.classes) + ")")
          .SetRequiresGrad(false, {"features\\..*"}));
  if (!made.ok()) return made.status();
  std::cout << "before:\n"
            << made->architecture_before << "\nafter:\n"
            << made->architecture_after << "\n"
            << made->checkpoint.name << ": " << made->new_tensor_bytes
            << " bytes of new tensors\n";
  return made->checkpoint.name;
}

// A batch of images [8, 3, H, W] and labels [8]. The label determines the brightness, so
// that there is something to learn.
std::pair<torch::Tensor, torch::Tensor> Batch(const Flags& flags) {
  const torch::Tensor labels = torch::randint(flags.classes, {8});
  const torch::Tensor images = torch::rand({8, 3, flags.image, flags.image}) +
                               labels.to(torch::kFloat).reshape({8, 1, 1, 1});
  return {images, labels};
}

// Trains the classifier and saves one version per epoch. Returns their names.
absl::StatusOr<std::vector<std::string>> FineTune(const modelstore::Client& client,
                                                  const std::string& from,
                                                  const Flags& flags) {
  auto model = modelstore::LoadModel(client, from);
  if (!model.ok()) return model.status();
  std::vector<torch::Tensor> trained;
  for (const auto& parameter : model->module->named_parameters()) {
    const bool frozen = parameter.key().rfind("features.", 0) == 0;
    // Frozen parameters do not change, so each save finds their bytes stored already.
    parameter.value().set_requires_grad(!frozen);
    if (!frozen) trained.push_back(parameter.value());
  }
  torch::optim::SGD optimizer(trained, torch::optim::SGDOptions(0.001).momentum(0.9));
  model->module->train();
  std::vector<std::string> names;
  for (int epoch = 0; epoch < flags.epochs; ++epoch) {
    const auto [images, labels] = Batch(flags);
    optimizer.zero_grad();
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(model->Forward(images), labels);
    loss.backward();
    optimizer.step();
    auto saved = modelstore::SaveCheckpoint(
        client, flags.model,
        {.module = model->module.get(),
         .optimizer = &optimizer,
         .metadata = {.epoch = epoch, .loss = loss.item<double>()}});
    if (!saved.ok()) return saved.status();
    std::cout << saved->name << ": epoch " << epoch << ", loss " << loss.item<double>()
              << "\n";
    names.push_back(saved->name);
  }
  return names;
}

// Prints how many tensors differ between two versions, and which.
absl::Status Compare(const modelstore::Client& client, const std::string& a,
                     const std::string& b) {
  auto compared = modelstore::CompareCheckpoints(client, a, b,
                                                 {.selection = {.sections = {"model"}}});
  if (!compared.ok()) return compared.status();
  std::cout << a << " and " << b << ": " << compared->equal_tensors << " tensors equal, "
            << compared->different_tensors << " not\n";
  for (const auto& difference : compared->differences) {
    std::cout << "  " << difference.tensor << "\n";
  }
  return absl::OkStatus();
}

// Averages the last three versions on the server. The optimizer's state is reset, because
// it does not belong to averaged weights.
absl::Status Average(const modelstore::Client& client, std::vector<std::string> names) {
  if (names.size() > 3) names.erase(names.begin(), names.end() - 3);
  auto averaged = modelstore::ModifyCheckpoint(
      client, names.back(), modelstore::EditList().Average(names),
      {.optimizer_policy = modelstore::OptimizerPolicy::kReset});
  if (!averaged.ok()) return averaged.status();
  std::cout << averaged->checkpoint.name << ": average of " << names.size()
            << " versions\n";
  return absl::OkStatus();
}

// Prints the chain of versions that the latest one is based on, with the edits of each.
absl::Status ShowHistory(const modelstore::Client& client, const std::string& model) {
  auto history = modelstore::History(client, model + "/checkpoints/latest");
  if (!history.ok()) return history.status();
  std::cout << "history:\n";
  for (const auto& entry : *history) {
    std::cout << "  " << entry.checkpoint.name << " "
              << modelstore::ToString(entry.checkpoint.origin) << "\n";
    for (const std::string& edit : entry.edits) std::cout << "    " << edit << "\n";
  }
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags) {
  auto client = modelstore::Client::Connect(flags.server);
  if (!client.ok()) return client.status();
  auto head = ReplaceHead(*client, flags);
  if (!head.ok()) return head.status();
  auto tuned = FineTune(*client, *head, flags);
  if (!tuned.ok()) return tuned.status();
  if (auto s = Compare(*client, *head, tuned->back()); !s.ok()) return s;
  if (auto s = Average(*client, *tuned); !s.ok()) return s;
  return ShowHistory(*client, flags.model);
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Fine-tunes a stored VGG16 for other classes");
  app.option_defaults()->always_capture_default();
  app.add_option("--server", flags.server, "Address of modelstored");
  app.add_option("--classes", flags.classes, "Of the new head")
      ->check(CLI::Range(2, 1000));
  app.add_option("--image", flags.image, "Height and width of the images");
  app.add_option("--epochs", flags.epochs, "Steps, a version each")
      ->check(CLI::Range(2, 100));
  app.add_option("model", flags.model, "models/{id}");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Run(flags);
  if (!status.ok())
    std::cerr << "transfer_learning: " << modelstore::StatusLine(status) << "\n";
  return status.ok() ? 0 : 1;
}
