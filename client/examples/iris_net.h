// Shared by the iris examples: the network and the reader for Fisher's data.
#pragma once

#include <torch/torch.h>

#include <array>
#include <fstream>
#include <sstream>
#include <string>

namespace iris {

inline constexpr std::array<const char*, 3> kSpecies = {"setosa", "versicolor",
                                                        "virginica"};

// Takes 4 measurements and returns 3 scores. Because of the dropout, training depends on
// the state of the random generator: a resumed run repeats an uninterrupted one only if
// that state is restored too.
struct NetImpl : torch::nn::Module {
  NetImpl() {
    hidden = register_module("hidden", torch::nn::Linear(4, 16));
    dropout = register_module("dropout", torch::nn::Dropout(0.1));
    output = register_module("output", torch::nn::Linear(16, 3));
  }
  torch::Tensor forward(torch::Tensor x) {
    return output(dropout(torch::relu(hidden(x))));
  }
  torch::nn::Linear hidden{nullptr}, output{nullptr};
  torch::nn::Dropout dropout{nullptr};
};
TORCH_MODULE(Net);

struct Data {
  torch::Tensor measurements;  // float32 [150, 4], in centimetres
  torch::Tensor species;       // int64 [150], an index into kSpecies
};

// Reads the data from a CSV file. Skips lines that start with `#` and the line with the
// column names. Returns empty tensors if the file cannot be read.
inline Data ReadCsv(const std::string& path) {
  std::vector<float> measurements;
  std::vector<int64_t> species;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::array<float, 4> row{};
    char comma = ',';
    for (float& value : row) fields >> value >> comma;
    std::string name;
    // Comments, the header and blank lines fail to parse as four numbers and a name.
    if (!(fields >> name)) continue;
    measurements.insert(measurements.end(), row.begin(), row.end());
    for (size_t i = 0; i < kSpecies.size(); ++i) {
      if (name == kSpecies[i]) species.push_back(static_cast<int64_t>(i));
    }
  }
  const auto rows = static_cast<int64_t>(species.size());
  return {torch::tensor(measurements).view({-1, 4}).slice(0, 0, rows),
          torch::tensor(species)};
}

// Fraction of the flowers that the network classifies correctly, in evaluation mode.
// Restores the mode that the network was in.
inline double Accuracy(Net& net, const Data& data) {
  const torch::NoGradGuard no_grad;
  const bool training = net->is_training();
  net->eval();
  const torch::Tensor named = net(data.measurements).argmax(1);
  net->train(training);
  return named.eq(data.species).to(torch::kDouble).mean().item<double>();
}

}  // namespace iris
