// Helpers of the tests with optimizers.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore::support {

// A model `m` of its own fixture.
class OptimizerFixture : public ::testing::Test {
 protected:
  absl::Status Save(const SaveArgs& args) {
    return SaveCheckpoint(fixture_.client(), "models/m", args).status();
  }
  LoadResult Load(const LoadArgs& args, const LoadOptions& options = {}) {
    return LoadCheckpoint(fixture_.client(), kLatest, args, options);
  }
  ServerFixture fixture_;
};

struct TwoLayersImpl : torch::nn::Module {
  TwoLayersImpl() {
    first = register_module("first", torch::nn::Linear(6, 8));
    second = register_module("second", torch::nn::Linear(8, 3));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return second(torch::dropout(torch::relu(first(x)), 0.3, is_training()));
  }
  torch::nn::Linear first{nullptr}, second{nullptr};
};
TORCH_MODULE(TwoLayers);

// A step on data of its own; LBFGS evaluates it several times.
inline void Step(TwoLayers& net, torch::optim::Optimizer& optimizer) {
  const torch::Tensor data = torch::randn({5, 6});
  optimizer.step([&] {
    optimizer.zero_grad();
    torch::Tensor loss = net(data).pow(2).mean();
    loss.backward();
    return loss;
  });
}

// SGD with a momentum of 0.9, a group for each list.
inline torch::optim::SGD SgdOf(const std::vector<std::vector<torch::Tensor>>& groups) {
  const auto options = torch::optim::SGDOptions(0.1).momentum(0.9);
  std::vector<torch::optim::OptimizerParamGroup> made;
  for (const auto& group : groups) {
    made.emplace_back(group, std::make_unique<torch::optim::SGDOptions>(options));
  }
  return torch::optim::SGD(std::move(made), options);
}

inline torch::optim::SGD SgdOver(const std::vector<torch::Tensor>& parameters) {
  return SgdOf({parameters});
}

// The momentum of a parameter; undefined if it has none.
inline torch::Tensor MomentumOf(const torch::optim::SGD& sgd,
                                const torch::Tensor& parameter) {
  for (const auto& [key, state] : sgd.state()) {
    std::ostringstream address;
    address << parameter.unsafeGetTensorImpl();
    if (key != address.str()) continue;
    return static_cast<const torch::optim::SGDParamState&>(*state).momentum_buffer();
  }
  return {};
}

// An embedding whose table is the head's weight too, unless `tied` is false.
struct PieceImpl : torch::nn::Module {
  explicit PieceImpl(const torch::Tensor& shared) {
    weight = register_parameter("weight", shared);
    bias = register_parameter("bias", torch::zeros({4}));
  }
  torch::Tensor weight, bias;
};
TORCH_MODULE(Piece);

struct TiedPiecesImpl : torch::nn::Module {
  explicit TiedPiecesImpl(bool tied = true) {
    embed = register_module("embed", Piece(torch::rand({4, 3})));
    head = register_module("head", Piece(tied ? embed->weight : torch::rand({4, 3})));
  }
  torch::Tensor Loss() {
    return (embed->weight.pow(2).sum() + head->weight.sum() + embed->bias.sum() +
            (head->bias - 1).pow(2).sum());
  }
  Piece embed{nullptr}, head{nullptr};
};
TORCH_MODULE(TiedPieces);

}  // namespace modelstore::support
