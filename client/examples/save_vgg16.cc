// Saves a VGG16 with random weights and its architecture, and prints its scores for a
// random image. run_model, which does not know the class, must print the same scores.
//
//   save_vgg16 models/vgg16 --seed 1
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <iostream>
#include <string>

#include "client/examples/show_scores.h"
#include "client/examples/vgg16.h"
#include "modelstore/errors.h"
#include "modelstore/torch.h"

namespace {

int Save(const std::string& server, const std::string& name,
         const vgg16::Options& options, uint64_t seed, int64_t image) {
  auto client = modelstore::Client::Connect(server);
  if (!client.ok()) {
    std::cerr << "save_vgg16: " << modelstore::StatusLine(client.status()) << "\n";
    return 1;
  }
  torch::manual_seed(seed);
  vgg16::VGG net(options);
  // C++ modules do not expose what forward() does, so it is passed as a list of steps:
  // the empty path is the root module. It is stored with the architecture, for run_model.
  auto saved = modelstore::SaveCheckpoint(
      *client, name, {.module = net.get(), .forward = {{"", vgg16::Forward()}}});
  if (!saved.ok()) {
    std::cerr << "save_vgg16: " << modelstore::StatusLine(saved.status()) << "\n";
    return 1;
  }
  // As run_model does: dropout is off.
  net->eval();
  std::cout << saved->name << "\n";
  examples::ShowScores([&](const torch::Tensor& x) { return net(x); }, image);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string server = "127.0.0.1:7070", name = "models/vgg16";
  vgg16::Options options;
  uint64_t seed = 0;
  int64_t image = 224;
  CLI::App app("Saves a VGG16 with random weights");
  app.option_defaults()->always_capture_default();
  app.add_option("--server", server, "Address of modelstored");
  app.add_option("--seed", seed, "Of the weights");
  app.add_option("--channels", options.channels, "Of the first convolutions");
  app.add_option("--hidden", options.hidden, "Features within the classifier");
  app.add_option("--image", image, "Height and width of the image shown");
  app.add_option("name", name, "models/{id}");
  CLI11_PARSE(app, argc, argv);
  return Save(server, name, options, seed, image);
}
