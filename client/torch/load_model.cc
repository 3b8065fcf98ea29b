#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/internal/rpc.h"
#include "client/torch/architecture_build.h"
#include "client/torch/element_type.h"
#include "client/torch/guard.h"
#include "client/torch/placement.h"
#include "client/torch/state_dict.h"
#include "modelstore/architecture.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/text.h"
#include "proto/contract/errors.h"

namespace modelstore {
namespace torch_internal {
namespace load_model {

// Fetches the checkpoint with its architecture. Resolves aliases and `latest`.
absl::StatusOr<v1::Checkpoint> FetchArchitecture(const Client& client,
                                                 std::string_view name,
                                                 Deadline deadline) {
  v1::GetCheckpointRequest request;
  request.set_name(std::string(name));
  request.set_view(v1::CHECKPOINT_VIEW_FULL);
  auto checkpoint =
      internal::CallStore<v1::Checkpoint>(client, "GetCheckpoint", request, deadline);
  if (!checkpoint.ok()) return checkpoint.status();
  if (checkpoint->has_architecture()) return checkpoint;
  return absl::FailedPreconditionError(
      absl::StrCat(checkpoint->name(),
                   " has no architecture: save it from a module, with "
                   "SaveArgs.architecture"));
}

// Registers zero tensors in containers for stored tensors that the module does not have.
absl::Status PlaceRemainingTensors(const std::vector<TensorInfo>& stored,
                                   torch::nn::Module& module) {
  std::set<std::string> there;
  for (const StateEntry& entry : WalkState(module)) there.insert(entry.key);
  std::vector<OwnTensor> own;
  for (const TensorInfo& tensor : stored) {
    if (tensor.section != "model" || there.contains(tensor.key)) continue;
    absl::StatusOr<torch::ScalarType> type = DTypeToTorch(tensor.dtype);
    if (!type.ok()) return type.status();
    own.push_back({tensor.key, tensor.shape, *type, tensor.role == TensorRole::kBuffer});
  }
  PlaceOwnTensors(own, module);
  return absl::OkStatus();
}

// Unexpected tensors that belong to no module, such as those of a second network, are
// ignored. FAILED_PRECONDITION for one below a module of the architecture: it would be
// missing there.
absl::Status CheckUnexpected(const std::vector<std::string>& unexpected,
                             const torch::nn::Module& module) {
  const auto modules = module.named_modules();
  for (const std::string& key : unexpected) {
    const std::string path(SplitModulePath(key).first);
    if (path.empty() || !modules.contains(path)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("module `", path, "` has no place for tensor `", key, "`"));
  }
  return absl::OkStatus();
}

// Freezes the parameters that were saved frozen.
void Freeze(const std::vector<TensorInfo>& stored, torch::nn::Module& module) {
  auto parameters = module.named_parameters();
  for (const TensorInfo& tensor : stored) {
    if (tensor.section != "model" || tensor.requires_grad) continue;
    if (torch::Tensor* parameter = parameters.find(tensor.key)) {
      parameter->set_requires_grad(false);
    }
  }
}

absl::StatusOr<LoadedModel> Load(const Client& client, std::string_view name,
                                 const LoadOptions& options) {
  // Creates normal tensors, which can be trained, even if the caller is in inference
  // mode.
  const c10::InferenceMode training(false);
  if (auto device = UsableDevice("device", options.device); !device.ok()) {
    return device.status();
  }
  if (!options.selection.sections.empty()) {
    return InvalidField("selection.sections",
                        "must be empty: nothing but section `model` is loaded");
  }
  const Deadline deadline = internal::TransferDeadline(options.deadline);
  auto checkpoint = FetchArchitecture(client, name, deadline);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<Built> built = BuildArchitecture(checkpoint->architecture());
  if (!built.ok()) return built.status();
  if (!built->forward) {
    return absl::FailedPreconditionError(
        absl::StrCat(checkpoint->name(), " cannot be built: ", built->why_not));
  }
  const auto stored = client.ListTensors(checkpoint->name(), {.deadline = deadline});
  if (!stored.ok()) return stored.status();
  // Registers further tensors, so that strict matching finds them. Then moves the module
  // to its device, because LoadCheckpoint() loads in place.
  if (auto s = PlaceRemainingTensors(*stored, *built->module); !s.ok()) return s;
  built->module->to(torch::Device(options.device));
  LoadOptions in_time = options;
  in_time.deadline = deadline;
  LoadResult loaded = LoadCheckpoint(
      client, checkpoint->name(),
      {.module = built->module.get(), .unexpected = Policy::kReport}, in_time);
  if (!loaded.status.ok()) return loaded.status;
  if (auto s = CheckUnexpected(loaded.report.unexpected, *built->module); !s.ok()) {
    return s;
  }
  Freeze(*stored, *built->module);
  built->module->eval();
  return LoadedModel{built->module, std::move(loaded.checkpoint),
                     std::move(loaded.report),
                     PrintModule(checkpoint->architecture().root()), built->forward};
}

}  // namespace load_model
}  // namespace torch_internal

absl::StatusOr<LoadedModel> LoadModel(const Client& client, std::string_view name,
                                      const LoadOptions& options) {
  return torch_internal::Guarded("building the model", [&] {
    return torch_internal::load_model::Load(client, name, options);
  });
}

absl::StatusOr<std::string> PrintArchitecture(const Client& client, std::string_view name,
                                              const CallOptions& options) {
  auto checkpoint = torch_internal::load_model::FetchArchitecture(
      client, name, internal::CallDeadline(client, options.deadline));
  if (!checkpoint.ok()) return checkpoint.status();
  return PrintModule(checkpoint->architecture().root());
}

}  // namespace modelstore
