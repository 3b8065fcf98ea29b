// VGG16 with torchvision's names and shapes, so the state dicts are interchangeable.
// Width and image can be made smaller to run quickly.
#pragma once

#include <torch/torch.h>

#include <string>
#include <vector>

namespace vgg16 {

struct Options {
  int64_t channels = 64;  // of the first convolutions; the last have 8 times as many
  int64_t hidden = 4096;  // features between the layers of the classifier
  int64_t pooled = 7;     // height and width of what enters the classifier
  int64_t classes = 1000;
};

// Takes images [N, 3, H, W] of at least 32 by 32 pixels and returns scores [N, classes].
// Has 138,357,544 parameters by default.
struct VGGImpl : torch::nn::Module {
  explicit VGGImpl(const Options& options = {}) {
    namespace nn = torch::nn;
    int64_t in = 3;
    for (const int times : {1, 2, 4, 8, 8}) {
      const int64_t out = options.channels * times;
      for (int i = 0; i < (times < 4 ? 2 : 3); ++i, in = out) {
        features->push_back(nn::Conv2d(nn::Conv2dOptions(in, out, 3).padding(1)));
        features->push_back(nn::ReLU(nn::ReLUOptions(true)));
      }
      features->push_back(nn::MaxPool2d(nn::MaxPool2dOptions(2).stride(2)));
    }
    avgpool = nn::AdaptiveAvgPool2d(
        nn::AdaptiveAvgPool2dOptions({options.pooled, options.pooled}));
    const int64_t flat = in * options.pooled * options.pooled;
    classifier = nn::Sequential(
        nn::Linear(flat, options.hidden), nn::ReLU(nn::ReLUOptions(true)), nn::Dropout(),
        nn::Linear(options.hidden, options.hidden), nn::ReLU(nn::ReLUOptions(true)),
        nn::Dropout(), nn::Linear(options.hidden, options.classes));
    register_module("features", features);
    register_module("avgpool", avgpool);
    register_module("classifier", classifier);
  }

  torch::Tensor forward(const torch::Tensor& images) {
    const torch::Tensor pooled = avgpool(features->forward(images));
    return classifier->forward(torch::flatten(pooled, 1));
  }

  torch::nn::Sequential features, classifier;
  torch::nn::AdaptiveAvgPool2d avgpool{nullptr};
};
TORCH_MODULE(VGG);

// The steps of forward() above, for SaveArgs::forward. With them stored, a program that
// does not know the class can run the model.
inline std::vector<std::string> Forward() {
  return {"features", "avgpool", "flatten(1)", "classifier"};
}

}  // namespace vgg16
