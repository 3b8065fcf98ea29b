// What save_vgg16 and run_model print, so that their outputs can be compared.
#pragma once

#include <torch/torch.h>

#include <cstdio>

namespace examples {

// The first scores of one random image, every bit of them.
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
