// Loads a trained network and classifies flowers with it. It needs only the model's class
// and its name in the store; given a model, it uses the version with the lowest loss.
//
//   predict_iris models/iris
//   predict_iris models/iris/checkpoints/12
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>

#include "client/examples/iris_net.h"
#include "modelstore/errors.h"
#include "modelstore/torch.h"

namespace {

int Fail(const absl::Status& status) {
  std::cerr << "predict_iris: " << modelstore::StatusLine(status) << "\n";
  return 1;
}

// Returns the name of the version with the lowest loss if `name` is a model, and `name`
// itself if it is a checkpoint.
absl::StatusOr<std::string> LowestLoss(const modelstore::Client& client,
                                       const std::string& name) {
  if (name.find("/checkpoints/") != std::string::npos) return name;
  auto checkpoints = client.ListCheckpoints(name);
  if (!checkpoints.ok()) return checkpoints.status();
  const modelstore::CheckpointInfo* best = nullptr;
  for (const auto& c : *checkpoints) {
    if (c.loss && (best == nullptr || *c.loss < *best->loss)) best = &c;
  }
  if (best == nullptr)
    return absl::NotFoundError("no version of " + name + " has a loss");
  return best->name;
}

int Predict(const std::string& server, const std::string& name, const std::string& csv) {
  auto client = modelstore::Client::Connect(server);
  if (!client.ok()) return Fail(client.status());
  auto checkpoint = LowestLoss(*client, name);
  if (!checkpoint.ok()) return Fail(checkpoint.status());

  iris::Net net;
  // Copies the stored weights into the tensors of `net`. Keys or shapes that do not fit
  // are refused before anything is written; the report lists them.
  modelstore::LoadResult loaded =
      modelstore::LoadCheckpoint(*client, *checkpoint, {.module = net.get()});
  if (!loaded.status.ok()) {
    std::cerr << loaded.report.ToString();
    return Fail(loaded.status);
  }
  net->eval();

  const iris::Data data = iris::ReadCsv(csv);
  if (data.species.numel() == 0) return Fail(absl::NotFoundError("no data in " + csv));
  std::printf("%s: epoch %ld, loss %.6f\n", loaded.checkpoint.name.c_str(),
              static_cast<long>(loaded.checkpoint.epoch.value_or(0)),
              loaded.checkpoint.loss.value_or(0));
  std::printf("accuracy on all %ld flowers: %.3f\n",
              static_cast<long>(data.species.size(0)), iris::Accuracy(net, data));

  const torch::NoGradGuard no_grad;
  const torch::Tensor flower = torch::tensor({6.0f, 2.9f, 4.5f, 1.5f});
  const torch::Tensor share = torch::softmax(net(flower.unsqueeze(0)), 1)[0];
  const auto species = share.argmax().item<int64_t>();
  std::printf("a flower of 6.0, 2.9, 4.5, 1.5 cm is %s (%.1f %%)\n",
              iris::kSpecies.at(static_cast<size_t>(species)),
              100 * share[species].item<double>());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string server = "127.0.0.1:7070", name = "models/iris";
  std::string csv = "client/examples/iris.csv";
  CLI::App app("Names an iris by the version of lowest loss");
  app.option_defaults()->always_capture_default();
  app.add_option("--server", server, "Address of modelstored");
  app.add_option("--data", csv, "Fisher's data as CSV");
  app.add_option("name", name, "models/{id}, or one version of it");
  CLI11_PARSE(app, argc, argv);
  return Predict(server, name, csv);
}
