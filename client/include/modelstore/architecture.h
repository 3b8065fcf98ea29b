// Models by name alone: a program loads and runs one whose class it does not know.
//
//   auto model = modelstore::LoadModel(*client, "models/vgg16/checkpoints/latest");
//   std::cout << model->text << "\n";             // as Python's print(model)
//   torch::Tensor scores = model->Forward(images);
//
// A save stores the architecture of its module (see SaveArgs::architecture): the tree
// of modules with the arguments of their constructors. LibTorch's own modules are
// read off the live ones; how a class of your own puts them together is told by
// SaveArgs::forward. Its steps are names of children, or these functions, by PyTorch's
// names and with its arguments by position:
//   relu relu6 gelu elu silu selu mish leaky_relu hardswish sigmoid logsigmoid tanh
//   softplus softmax(dim) log_softmax(dim) dropout(p) flatten(start, end) view(sizes)
//   squeeze(dim) unsqueeze(dim) transpose(a, b) select(dim, index) mean(dims)
//   max_pool2d(kernel, stride, padding) avg_pool2d(kernel, stride, padding)
//   adaptive_avg_pool2d(height, width)
//   add, mul: with the module's input; add(child), mul(child): with what that child
//   makes of the module's input
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "modelstore/torch.h"

namespace modelstore {

// A model that was built from the store. Copies share the module. As with any
// module, one thread at a time may use it.
struct LoadedModel {
  // In eval mode. Its children have the stored names and are LibTorch's own modules
  // where those have no children; parameters are found by their state-dict keys.
  // Saved again, it is stored as what it was loaded as.
  std::shared_ptr<torch::nn::Module> module;
  CheckpointInfo checkpoint;
  LoadReport report;
  // What Python's print(model) shows.
  std::string text;

  // Runs the stored forward: one tensor in, one out; of a recurrent module the
  // output without the state. Throws what torch throws.
  torch::Tensor Forward(const torch::Tensor& input) const { return run(input); }

  std::function<torch::Tensor(const torch::Tensor&)> run;
};

// Builds the model of a checkpoint and loads its tensors; floating-point tensors
// become float32, and parameters that were stored frozen do not require a gradient.
// Reads nothing but section `model`: INVALID_ARGUMENT if options.selection.sections names
// any. The generator of random numbers is left as it was.
// Tensors that belong to no module of the architecture, such as a second network that was
// saved in extra_tensors, are left out and listed in report.unexpected. Tensors that
// options.selection leaves out are listed in report.skipped: those of a layer stay as its
// constructor makes them, others are zero.
// FAILED_PRECONDITION, naming the module and what to do, if the checkpoint has no
// architecture or one that cannot run: a class without a forward, a type that LibTorch
// lacks, a function that was given as an activation; and, naming both, if a stored tensor
// has no place in the module whose path it has. Such a model is kept, printed and edited
// all the same.
absl::StatusOr<LoadedModel> LoadModel(const Client& client, std::string_view name,
                                      const LoadOptions& options = {});

// What Python's print(model) shows of a stored model, whether it can be built or not.
// FAILED_PRECONDITION if the checkpoint has no architecture.
absl::StatusOr<std::string> PrintArchitecture(const Client& client, std::string_view name,
                                              const CallOptions& options = {});

}  // namespace modelstore
