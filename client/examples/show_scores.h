// Output of save_vgg16 and run_model, which can be compared.
#pragma once

#include <torch/torch.h>

#include <cstdio>

namespace examples {

// Prints the first eight scores for a random image of `image` by `image` pixels. The
// image has a fixed seed, and %a prints floating-point numbers exactly. `model` maps a
// tensor [1, 3, H, W] to scores [1, classes].
template <typename Model>
void ShowScores(const Model& model, int64_t image) {
  const torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  const torch::Tensor scores = model(torch::rand({1, 3, image, image}))[0];
  for (int64_t i = 0; i < 8 && i < scores.size(0); ++i) {
    std::printf("score %ld: %a\n", static_cast<long>(i),
                static_cast<double>(scores[i].item<float>()));
  }
}

}  // namespace examples
