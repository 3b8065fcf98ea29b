#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/torch/architecture_read.h"
#include "client/torch/device/device_runtime.h"
#include "client/torch/guard.h"
#include "client/torch/key_rules.h"
#include "client/torch/member_check.h"
#include "client/torch/named_sections.h"
#include "client/torch/optimizer_save.h"
#include "client/torch/scheduler.h"
#include "client/torch/state_dict.h"
#include "client/torch/tensor_views.h"
#include "modelstore/torch.h"
#include "proto/contract/errors.h"

namespace modelstore {
namespace torch_internal {
namespace {

absl::StatusOr<std::map<std::string, const torch::optim::LRScheduler*>> SchedulersOf(
    const SaveArgs& args) {
  return BySection<const torch::optim::LRScheduler>("scheduler", args.scheduler,
                                                    args.schedulers);
}

// INVALID_ARGUMENT for arguments that exclude each other, and for a section that is given
// in `sections` and also written from another argument.
absl::Status CheckArgs(const SaveArgs& args) {
  if (args.module != nullptr && args.state_dict != nullptr) {
    return absl::InvalidArgumentError("give a module or a state dict, not both");
  }
  const auto optimizers = OptimizersOf(args);
  if (!optimizers.ok()) return optimizers.status();
  const auto schedulers = SchedulersOf(args);
  if (!schedulers.ok()) return schedulers.status();
  for (const auto& [name, tree] : args.sections) {
    const bool taken = name == "model" || (name == "rng" && args.rng) ||
                       optimizers->contains(name) || schedulers->contains(name);
    if (taken) {
      return absl::InvalidArgumentError(
          absl::StrCat("section `", name, "` is written from the other arguments"));
    }
  }
  return absl::OkStatus();
}

// Adds section `model`. Its value is null: a plain state dict is the ordered dict of its
// tensors.
absl::Status AddModel(const SaveArgs& args, const std::vector<StateEntry>& entries,
                      ViewBuilder& views, SaveContent& content) {
  if (!args.module && !args.state_dict && entries.empty()) return absl::OkStatus();
  for (const StateEntry& entry : entries) {
    absl::Status status = views.Add("model", entry.key, entry.tensor, entry.role);
    if (!status.ok()) return status;
  }
  Value metadata = args.module ? StateMetadata(*args.module) : Value();
  content.sections.push_back({"model", Value(), std::move(metadata)});
  return absl::OkStatus();
}

// Adds one section per optimizer. `entries` has the registered tensors, because
// parameters are named by identity.
absl::Status AddOptimizers(const SaveArgs& args, const std::vector<StateEntry>& entries,
                           ViewBuilder& views, SaveContent& content) {
  const auto optimizers = OptimizersOf(args);
  if (!optimizers.ok()) return optimizers.status();
  if (optimizers->empty()) return absl::OkStatus();
  const ParameterNames names(entries);
  for (const auto& [name, optimizer] : *optimizers) {
    absl::StatusOr<OptimizerSection> section =
        ReadOptimizer(*optimizer, names,
                      /*nameless=*/!args.module && args.extra_tensors.empty());
    if (!section.ok()) return Annotate(section.status(), name);
    for (const auto& [key, tensor] : section->tensors) {
      absl::Status status = views.Add(name, key, tensor);
      if (!status.ok()) return status;
    }
    content.sections.push_back(
        {name, std::move(section->value), std::move(section->metadata)});
  }
  return absl::OkStatus();
}

// Adds section `rng`. Must follow all other tensors: it saves the generators of the
// devices that tensors were added from.
absl::Status AddRng(ViewBuilder& views, SaveContent& content) {
  Value states = Value::Dict({{"cpu", Value::Tensor("cpu")}});
  absl::Status status = views.Add("rng", "cpu", GetCpuRngState());
  Value of_devices = Value::Dict();
  const std::vector<int> devices = views.devices();
  for (const int device : devices) {
    const std::string key = absl::StrCat("cuda/", device);
    of_devices.Set(absl::StrCat(device), Value::Tensor(key));
    if (!status.ok()) return status;
    status = views.Add("rng", key, device::Runtime().RngState(device));
  }
  if (!devices.empty()) states.Set("cuda", std::move(of_devices));
  content.sections.push_back({"rng", std::move(states), Value()});
  return status;
}

absl::Status AddSections(const SaveArgs& args, ViewBuilder& views, SaveContent& content) {
  for (const auto& [name, tree] : args.sections) {
    for (const auto& [key, tensor] : tree.tensors) {
      absl::Status status = views.Add(name, key, tensor);
      if (!status.ok()) return status;
    }
    content.sections.push_back({name, tree.value, Value()});
  }
  const auto schedulers = SchedulersOf(args);
  if (!schedulers.ok()) return schedulers.status();
  for (const auto& [name, scheduler] : *schedulers) {
    content.sections.push_back(
        {name, SchedulerState(*scheduler), SchedulerMetadata(*scheduler)});
  }
  return args.rng ? AddRng(views, content) : absl::OkStatus();
}

// Collects the content of a save as of now. Contiguous CPU tensors are not copied; the
// content has views of them. `at_rest`: see ViewBuilder.
absl::StatusOr<SaveContent> Capture(const SaveArgs& args, bool at_rest) {
  if (absl::Status status = CheckArgs(args); !status.ok()) return status;
  // `entries` has the registered tensors, which optimizers hold; `used` has those that
  // forward() uses, which are saved.
  std::vector<StateEntry> entries, used;
  absl::StatusOr<KeyPatterns> non_persistent =
      KeyPatterns::Make("non_persistent", args.non_persistent);
  if (!non_persistent.ok()) return non_persistent.status();
  absl::Status status = absl::OkStatus();
  if (args.module) {
    entries = WalkState(*args.module, *non_persistent);
  }
  if (args.state_dict) entries = WalkState(*args.state_dict);
  if (status.ok()) status = AddExtra(args.extra_tensors, entries);
  used = entries;
  if (status.ok() && args.module && !args.ignore_reassigned_members) {
    status = FollowMembers(*args.module, "saved", used);
  }
  SaveContent content;
  ViewBuilder views(at_rest);
  if (status.ok()) status = AddModel(args, used, views, content);
  if (status.ok()) status = AddOptimizers(args, entries, views, content);
  if (status.ok()) status = AddSections(args, views, content);
  if (!status.ok()) return status;
  if (args.module && args.architecture) {
    absl::StatusOr<v1::Architecture> architecture =
        ReadArchitecture(*args.module, args.forward);
    if (!architecture.ok()) return architecture.status();
    content.architecture = architecture->SerializeAsString();
  } else if (!args.forward.empty()) {
    return absl::InvalidArgumentError("forward: needs a module and its architecture");
  }
  content.tensors = views.Take();
  content.metadata = args.metadata;
  content.framework = "libtorch " TORCH_VERSION;
  content.code_commit = args.code_commit;
  content.attachments = args.attachments;
  return content;
}

// Exceptions of torch can only occur in Capture(): the rest of the save is free of torch.
SaveHandle Begin(const Client& client, std::string_view parent, const SaveArgs& args,
                 const SaveOptions& options, bool at_rest) {
  absl::StatusOr<SaveContent> content =
      Guarded("reading what to save", [&] { return Capture(args, at_rest); });
  if (!content.ok()) return SaveHandle::Failed(content.status());
  return client.SaveAsync(parent, *std::move(content), options);
}

}  // namespace
}  // namespace torch_internal

absl::StatusOr<CheckpointInfo> SaveCheckpoint(const Client& client,
                                              std::string_view parent,
                                              const SaveArgs& args,
                                              const SaveOptions& options) {
  // The caller is blocked until the save ends, so the tensors do not change and need no
  // staging.
  return torch_internal::Begin(client, parent, args, options, /*at_rest=*/true).Finish();
}

SaveHandle SaveCheckpointAsync(const Client& client, std::string_view parent,
                               const SaveArgs& args, const SaveOptions& options) {
  return torch_internal::Begin(client, parent, args, options, /*at_rest=*/false);
}

}  // namespace modelstore
