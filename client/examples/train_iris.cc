// Trains a classifier on Fisher's iris data and saves a checkpoint every few epochs
// without stopping. If it is killed at any moment and started again with --resume, it
// produces the same losses, bit for bit, as an uninterrupted run.
//
//   train_iris --model models/iris --data client/examples/iris.csv --epochs 60
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <optional>
#include <thread>

#include "client/examples/iris_net.h"
#include "modelstore/errors.h"
#include "modelstore/torch.h"

namespace {

struct Flags {
  std::string server = "127.0.0.1:7070";
  std::string model = "models/iris";
  std::string data = "client/examples/iris.csv";
  std::string losses;
  int64_t epochs = 60;
  int64_t save_every = 2;
  int64_t stop_after = -1;
  int64_t epoch_ms = 0;
  uint64_t seed = 1936;
  double lr = 0.01;
  double momentum = 0.9;
  bool resume = false;
};

int Fail(const absl::Status& status) {
  std::cerr << "train_iris: " << modelstore::StatusLine(status) << "\n";
  return 1;
}

// One pass over the data in shuffled batches of 15. Returns the mean loss.
double TrainEpoch(iris::Net& net, torch::optim::Optimizer& optimizer,
                  const iris::Data& data) {
  const torch::Tensor order =
      torch::randperm(data.species.size(0), torch::TensorOptions(torch::kLong));
  double sum = 0;
  int64_t batches = 0;
  for (const torch::Tensor& batch : order.split(15)) {
    optimizer.zero_grad();
    torch::Tensor loss = torch::nn::functional::cross_entropy(
        net(data.measurements.index_select(0, batch)),
        data.species.index_select(0, batch));
    loss.backward();
    optimizer.step();
    sum += loss.item<double>();
    ++batches;
  }
  return sum / static_cast<double>(batches);
}

int Train(const Flags& flags) {
  auto client = modelstore::Client::Connect(flags.server);
  if (!client.ok()) return Fail(client.status());
  const iris::Data data = iris::ReadCsv(flags.data);
  if (data.species.numel() == 0) {
    return Fail(absl::NotFoundError("no data in " + flags.data));
  }

  torch::manual_seed(flags.seed);
  iris::Net net;
  torch::optim::SGD optimizer(
      net->parameters(), torch::optim::SGDOptions(flags.lr).momentum(flags.momentum));
  int64_t epoch = 0;
  double loss = 0;
  if (flags.resume) {
    // Restores the weights, the momentum, and the state of the random generator.
    modelstore::LoadResult loaded = modelstore::LoadCheckpoint(
        *client, flags.model + "/checkpoints/latest",
        {.module = net.get(), .optimizer = &optimizer, .rng = true});
    if (loaded.status.ok()) {
      epoch = loaded.checkpoint.epoch.value_or(0);
      loss = loaded.checkpoint.loss.value_or(0);
      std::cout << "resumed from " << loaded.checkpoint.name << ", epoch " << epoch
                << std::endl;
    } else if (absl::IsNotFound(loaded.status)) {
      std::cout << "nothing was saved yet: starting anew" << std::endl;
    } else {
      std::cerr << loaded.report.ToString();
      return Fail(loaded.status);
    }
  }
  std::ofstream losses;
  if (!flags.losses.empty()) losses.open(flags.losses);
  losses << std::setprecision(17);

  std::optional<modelstore::SaveHandle> save;
  while (epoch < flags.epochs && epoch != flags.stop_after) {
    // SaveCheckpointAsync() copies the state on other threads. optimizer.step() must not
    // change the weights before that copy is complete; the upload continues during the
    // epoch.
    if (save) {
      absl::Status staged = save->Staged(modelstore::After(std::chrono::minutes(1)));
      if (!staged.ok()) return Fail(staged);
    }
    loss = TrainEpoch(net, optimizer, data);
    ++epoch;
    losses << epoch << " " << loss << std::endl;
    if (epoch % flags.save_every == 0 || epoch == flags.epochs) {
      modelstore::SaveArgs args = {
          .module = net.get(),
          .optimizer = &optimizer,
          .metadata = {.epoch = epoch,
                       // 150 flowers in batches of 15.
                       .step = epoch * 10,
                       .loss = loss,
                       .metrics = {{"accuracy", iris::Accuracy(net, data)}}},
          .rng = true};
      args.sections["hyperparameters"].value = modelstore::Value::Dict(
          {{"lr", flags.lr}, {"momentum", flags.momentum}, {"batch_size", 15}});
      // A failure is returned by the handle, else by the next save or by Drain().
      save = modelstore::SaveCheckpointAsync(*client, flags.model, args);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(flags.epoch_ms));
  }
  // Waits for all saves. Returns the first failure that no wait has returned yet.
  absl::Status drained = client->Drain(modelstore::After(std::chrono::minutes(5)));
  if (!drained.ok()) return Fail(drained);
  std::printf("epoch %ld: loss %.6f, accuracy %.3f\n", static_cast<long>(epoch), loss,
              iris::Accuracy(net, data));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Trains on Fisher's iris data, with a checkpoint every few epochs");
  app.option_defaults()->always_capture_default();
  app.add_option("--server", flags.server, "Address of modelstored");
  app.add_option("--model", flags.model, "Model to save to, models/{id}");
  app.add_option("--data", flags.data, "Fisher's data as CSV");
  app.add_option("--epochs", flags.epochs, "Epochs in all");
  app.add_option("--save-every", flags.save_every, "Epochs between checkpoints")
      ->check(CLI::PositiveNumber);
  app.add_option("--losses", flags.losses, "File for a line `epoch loss` per epoch");
  app.add_option("--stop-after", flags.stop_after, "Stop once this epoch is done");
  app.add_option("--epoch-ms", flags.epoch_ms, "Rest so long after each epoch");
  app.add_option("--seed", flags.seed, "Seed of a fresh start");
  app.add_option("--lr", flags.lr, "Learning rate");
  app.add_option("--momentum", flags.momentum, "Momentum");
  app.add_flag("--resume", flags.resume, "Continue from the model's latest checkpoint");
  CLI11_PARSE(app, argc, argv);
  // With one thread, sums are computed in a fixed order, so losses are equal to the last
  // bit.
  torch::set_num_threads(1);
  return Train(flags);
}
