// Builds and runs a stored model in a program that does not have the model's class.
//
//   auto model = modelstore::LoadModel(*client, "models/vgg16/checkpoints/latest");
//   std::cout << model->text << "\n";             // as Python's print(model)
//   torch::Tensor scores = model->Forward(images);
//
// A save stores the architecture of its module (see SaveArgs::architecture): the tree
// of modules with their constructor arguments. LibTorch's own modules are read
// automatically. For a class of your own, SaveArgs::forward lists the steps of its
// forward(). A step is the name of a child, or one of these functions with PyTorch's
// name and positional arguments:
//   relu relu6 gelu elu silu selu mish leaky_relu hardswish sigmoid logsigmoid tanh
//   softplus softmax(dim) log_softmax(dim) dropout(p) flatten(start, end) view(sizes)
//   squeeze(dim) unsqueeze(dim) transpose(a, b) select(dim, index) mean(dims)
//   max_pool2d(kernel, stride, padding) avg_pool2d(kernel, stride, padding)
//   adaptive_avg_pool2d(height, width)
//   add, mul                 combines the current value with the module's input
//   add(child), mul(child)   combines it with the child's output for the module's input
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "modelstore/torch.h"

namespace modelstore {

// A model built from a checkpoint. Copies share the module. Used by one thread at a
// time, as any module.
struct LoadedModel {
  // In eval mode. Leaves are LibTorch's own modules; containers are of a class of this
  // library. Names and state-dict keys are the stored ones. Saving the module stores the
  // architecture that it was loaded with.
  std::shared_ptr<torch::nn::Module> module;
  CheckpointInfo checkpoint;
  LoadReport report;
  // The model as Python's print(model) shows it.
  std::string text;

  // Runs the stored forward: one tensor in, one tensor out. A recurrent module returns
  // its output without its state. Throws the exceptions of torch.
  torch::Tensor Forward(const torch::Tensor& input) const { return run(input); }

  // Implements Forward(). Valid while `module` is held.
  std::function<torch::Tensor(const torch::Tensor&)> run;
};

// Builds the model of a checkpoint and loads its tensors. `name` is
// `models/{model}/checkpoints/{version}`, an alias or `latest`.
//
// Floating-point tensors become float32. Parameters that were saved frozen do not require
// a gradient. Reads section `model` only: INVALID_ARGUMENT if options.selection.sections
// is not empty. The state of torch's random generator is not changed.
//
// Tensors that belong to no module of the architecture, such as a second network saved in
// extra_tensors, are not loaded and are listed in report.unexpected. Tensors that
// options.selection excludes are listed in report.skipped: those of a layer keep the
// values of its constructor, others are zero.
//
// FAILED_PRECONDITION, naming the module and the remedy, if the checkpoint has no
// architecture or one that cannot run: a class without a forward, a type that LibTorch
// lacks, a function passed as an activation. FAILED_PRECONDITION, naming both, if a
// stored tensor has no member in the module at its path. Such a model can still be
// printed and edited.
absl::StatusOr<LoadedModel> LoadModel(const Client& client, std::string_view name,
                                      const LoadOptions& options = {});

// Returns the stored model as Python's print(model) shows it. The model need not be
// buildable. FAILED_PRECONDITION if the checkpoint has no architecture.
absl::StatusOr<std::string> PrintArchitecture(const Client& client, std::string_view name,
                                              const CallOptions& options = {});

}  // namespace modelstore
