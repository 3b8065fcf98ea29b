// Runs an image model of the store on a random image. It needs only the model's name: the
// module is built from the stored architecture, without its C++ class.
//
//   run_model models/vgg16
//   run_model models/vgg16/checkpoints/3 --image 64
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "client/examples/show_scores.h"
#include "modelstore/architecture.h"
#include "modelstore/errors.h"

namespace {

int Run(const std::string& server, std::string name, int64_t image) {
  auto client = modelstore::Client::Connect(server);
  if (!client.ok()) {
    std::cerr << "run_model: " << modelstore::StatusLine(client.status()) << "\n";
    return 1;
  }
  if (name.find("/checkpoints/") == std::string::npos) name += "/checkpoints/latest";
  auto model = modelstore::LoadModel(*client, name);
  if (!model.ok()) {
    std::cerr << "run_model: " << modelstore::StatusLine(model.status()) << "\n";
    return 1;
  }
  std::cout << model->checkpoint.name << "\n" << model->text << "\n";
  examples::ShowScores([&](const torch::Tensor& x) { return model->Forward(x); }, image);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::string server = "127.0.0.1:7070", name = "models/vgg16";
  int64_t image = 224;
  CLI::App app("Runs a model by its name");
  app.option_defaults()->always_capture_default();
  app.add_option("--server", server, "Address of modelstored");
  app.add_option("--image", image, "Height and width of the random image it is shown");
  app.add_option("name", name, "models/{id}, or one version of it");
  CLI11_PARSE(app, argc, argv);
  return Run(server, name, image);
}
