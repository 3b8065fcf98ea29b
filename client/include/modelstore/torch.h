// Saving and loading torch modules, state dicts and optimizers.
//
//   auto client = modelstore::Client::Connect("localhost:7070");
//   auto saved = modelstore::SaveCheckpoint(*client, "models/iris",
//       {.module = net.get(), .optimizer = &sgd,
//        .metadata = {.epoch = 4, .loss = loss}});
//   modelstore::LoadResult r = modelstore::LoadCheckpoint(*client,
//       "models/iris/checkpoints/latest", {.module = net.get(), .optimizer = &sgd});
//   if (!r.status.ok()) std::cerr << r.status << "\n" << r.report.ToString();
//   modelstore::StateDict weights;  // fresh tensors, on a GPU
//   r = modelstore::LoadCheckpoint(*client, "models/iris/checkpoints/latest",
//       {.state_dict = &weights}, {.device = "cuda:0"});
//
// Corresponds to Python's torch.save, Module.state_dict / load_state_dict and
// Optimizer.state_dict / load_state_dict. Nothing here throws: exceptions of torch become
// a status.
#pragma once

#include <torch/torch.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "modelstore/client.h"
#include "modelstore/load_report.h"

namespace modelstore {

// Names and tensors in order, as Module.state_dict() in Python.
using StateDict = std::vector<std::pair<std::string, torch::Tensor>>;

// Returns the parameters and buffers of a module by state-dict key, in PyTorch's order:
// for each module its parameters, then its buffers, then its children. The tensors share
// the module's memory.
StateDict GetStateDict(const torch::nn::Module& module);

// Get and set the state of the CPU generator, as torch.get_rng_state and
// torch.set_rng_state do. The state is a uint8 tensor.
torch::Tensor GetCpuRngState();
absl::Status SetCpuRngState(const torch::Tensor& state);

// The content of a section: a tree of values, and the tensors it refers to, by key.
struct ValueTree {
  Value value;
  std::map<std::string, torch::Tensor> tensors;
};

// What to save. All members are optional, but there must be something to save. Pointers
// are not owned and must stay valid during the call.
struct SaveArgs {
  // Saved in section `model`: a module, or a state dict, not both.
  const torch::nn::Module* module = nullptr;
  const StateDict* state_dict = nullptr;
  // Further tensors of the model's state that are not in the module, such as a trained
  // temperature, or a second network:
  //   SaveArgs args = {.module = clip.get(), .extra_tensors = {{"logit_scale", scale}}};
  //   for (auto& [key, tensor] : GetStateDict(*critic)) {
  //     args.extra_tensors.emplace_back("critic." + key, tensor);
  //   }
  // They are saved in section `model` under these names, after the module's tensors. Pass
  // the same to LoadArgs.
  StateDict extra_tensors = {};
  // Any optimizer of LibTorch, saved in section `optimizer`. Its parameters get the names
  // of the identical tensors in module (or state_dict) and extra_tensors.
  // INVALID_ARGUMENT, with group, position and shape, for a parameter that is not among
  // them. A parameter that is listed twice (tied weights) is saved once, as in PyTorch.
  // Without module and extra_tensors, an optimizer whose parameters are all unknown is
  // saved without names.
  torch::optim::Optimizer* optimizer = nullptr;
  // Further optimizers by name, saved in sections `optimizer.NAME`. INVALID_ARGUMENT if
  // that is not a valid section name. Example, for a GAN:
  //   {{"generator", &generator_adam}, {"critic", &critic_adam}}
  std::map<std::string, torch::optim::Optimizer*> optimizers = {};
  // Epoch, step, loss, metrics, labels and description of the version.
  CheckpointMetadata metadata = {};
  // Further sections by name, such as `hyperparameters` or `extra`.
  std::map<std::string, ValueTree> sections = {};
  // Saves the state of the CPU generator, and of each GPU that tensors are saved from, in
  // section `rng`.
  bool rng = false;
  // RE2 patterns that match the whole keys of buffers that are not saved. Corresponds to
  // PyTorch's register_buffer(persistent=False), which LibTorch lacks.
  std::vector<std::string> non_persistent = {};
  // StepLR or another LRScheduler, saved in section `scheduler` in Python's layout: its
  // step count, and StepLR's `step_size` and `gamma`. The learning rates are saved with
  // the optimizer.
  const torch::optim::LRScheduler* scheduler = nullptr;
  // Further schedulers by name, saved in sections `scheduler.NAME`.
  std::map<std::string, const torch::optim::LRScheduler*> schedulers = {};
  // If a tensor is assigned to a member of a LibTorch module, forward() uses the new
  // tensor while the old one stays registered. Assigning a tensor that is registered
  // elsewhere in the module ties the two (`decoder->weight = encoder->weight`); they are
  // saved as tied. Any other assignment (`bn->running_mean = t`) is INVALID_ARGUMENT,
  // naming the member. If this flag is set, the registered tensors are saved without this
  // check. Members of your own classes are not checked.
  bool ignore_reassigned_members = false;
  // Version control commit of the training code.
  std::string code_commit = {};
  // See SaveContent.
  std::vector<Attachment> attachments = {};
  // Stores the module's architecture: see architecture.h.
  bool architecture = true;
  // The forward() of containers, by module path; the empty path is the module itself.
  // Each is a list of steps in order: names of children, and the functions that
  // architecture.h lists. A Sequential needs none. Example, for VGG:
  //   {{"", {"features", "avgpool", "flatten(1)", "classifier"}}}
  // A residual block ends with "add" (adds its input) or "add(downsample)".
  std::map<std::string, std::vector<std::string>> forward = {};
};

// Saves `args` as the next version of `parent`, `models/{model}`. Returns when the
// version is durable. The tensors must not change during the call.
[[nodiscard]] absl::StatusOr<CheckpointInfo> SaveCheckpoint(
    const Client& client, std::string_view parent, const SaveArgs& args,
    const SaveOptions& options = {});

// Starts a save and returns once every tensor has been found and named. The tensors must
// not change before SaveHandle::Staged() returns; the values at the time of this call are
// saved. Non-contiguous tensors, the states of random generators and the optimizer's
// scalars are copied before it returns. Errors are returned by the functions of the
// handle.
//
// GPU tensors: the values saved are those after the work that is queued on the device's
// current stream (of the calling thread) at this call. They are copied on a separate
// stream into page-locked memory of the same size; Staged() waits for these copies. If
// options.max_staging_bytes is smaller, they are copied in parts while they are sent, and
// Staged() returns after the last part was copied.
SaveHandle SaveCheckpointAsync(const Client& client, std::string_view parent,
                               const SaveArgs& args, const SaveOptions& options = {});

// What a load does about a difference between the checkpoint and the program.
enum class Policy : uint8_t {
  kFail,    // fail before anything is changed
  kReport,  // continue and list the difference in the report
  kIgnore,  // continue
};

// Destinations of a load, and its strictness. LoadOptions has the selection of tensors,
// the dtype and the device. Pointers are not owned.
//
// Sections: each destination loads its own section. options.selection.sections lists
// further sections to return in LoadResult::sections. If no module, state_dict,
// extra_tensors or optimizer is given and no section is listed, all are returned.
//
// Devices: options.device applies to new tensors, as PyTorch's map_location does. Tensors
// of a module are loaded in place, and the state of its optimizer goes to the same
// devices. Other GPUs are not used. RESOURCE_EXHAUSTED, before anything is allocated, if
// a device has too little free memory; the message has both figures.
//
// A load that fails before the transfer changes nothing.
struct LoadArgs {
  // Loaded in place from section `model`. Its training mode does not change.
  torch::nn::Module* module = nullptr;
  // Replaced by new tensors of section `model`. Not together with a module.
  StateDict* state_dict = nullptr;
  // See SaveArgs. Loaded in place, with the same policies as tensors of the module. May
  // be used without a module.
  StateDict extra_tensors = {};
  // State is assigned by parameter name: pass module and extra_tensors as when saving.
  // For state without names, such as Python's, see parameter_order. State and options are
  // replaced together at the end of the load. New tensors can be used for training even
  // if the load runs in inference mode.
  torch::optim::Optimizer* optimizer = nullptr;
  // Further optimizers by name: see SaveArgs. Policies apply to each of them. All are
  // checked before any is replaced.
  std::map<std::string, torch::optim::Optimizer*> optimizers = {};
  // Restores the random generators from section `rng`. Reported as skipped: stored
  // generators of GPUs that this process does not have, and GPUs with tensors of the
  // module whose generators are not stored.
  bool rng = false;
  // See SaveArgs. Such a buffer is not loaded and not reported as missing; if it is
  // stored, it is unexpected.
  std::vector<std::string> non_persistent = {};
  // Receives the step count of section `scheduler`. Learning rates are loaded with the
  // optimizer. Other settings are not loaded: see `settings`.
  torch::optim::LRScheduler* scheduler = nullptr;
  // Further schedulers by name: see SaveArgs.
  std::map<std::string, torch::optim::LRScheduler*> schedulers = {};
  // See SaveArgs. If set, the registered tensors are loaded, which forward() does not use
  // where a member was assigned another tensor.
  bool ignore_reassigned_members = false;
  // Exceptions to options.device: pairs {pattern, device}; the first match applies. RE2
  // patterns match a whole `section:key`, or a whole key of section `model`, by the names
  // after renaming. Tied tensors go to the device of the first of them.
  std::vector<std::pair<std::string, std::string>> placement = {};
  // `cpu`: tensors go to the CPU if the device has no room or does not exist, which
  // LoadReport::fell_back lists. Empty: the load fails.
  std::string fallback = {};
  // As in PyTorch: false means kReport for missing and unexpected keys, true means kFail.
  // `missing` and `unexpected` override it. A key below the name of a tensor
  // (`weight.old`) is also unexpected, as in PyTorch 2; PyTorch 1.13 ignores such keys.
  bool strict = true;
  std::optional<Policy> missing = {};
  std::optional<Policy> unexpected = {};
  // Tensors of another shape. Does not depend on `strict`, as in PyTorch.
  Policy shape = Policy::kFail;
  // Changes of dtype. Casts between floating-point types are always done, and reported.
  // The server does them if all tensors of the module have one narrower type, which sends
  // fewer bytes. This policy applies to all other changes, which PyTorch casts silently.
  // options.target_dtype applies to new tensors. It can also reduce the bytes sent if the
  // module's tensors have that type; it is refused if it would lose precision on the way
  // to a wider type, and with an optimizer.
  Policy dtype = Policy::kFail;
  // Requested sections that the checkpoint does not have. A section is requested by its
  // name or by a member here. If the load continues, their destinations stay unchanged.
  Policy absent_sections = Policy::kFail;
  // Options of an optimizer (`lr`, `betas`) that differ from the stored ones. Unless
  // kFail, the stored ones are loaded, as in PyTorch.
  Policy hyperparameters = Policy::kReport;
  // Settings that differ and that a load does not change: a StepLR's `step_size` and
  // `gamma` (PyTorch loads them), those of other schedulers, and the class of an
  // optimizer with the same state (AdamW's state into Adam).
  Policy settings = Policy::kFail;
  // Optimizer state is assigned by parameter order, as in PyTorch, if the checkpoint or
  // the program has no parameter names. kFail refuses this if only the checkpoint has
  // names, or if the order is ambiguous: two parameters have equal shapes, or two without
  // state are in groups with different options. kReport and kIgnore allow it. If both
  // sides have names, names are always used. LoadReport::inferred lists the optimizers
  // assigned by order.
  Policy parameter_order = Policy::kFail;
  // Tensors that share memory here, completely or partly, and are stored with different
  // values. If the load continues, the last one wins, as in PyTorch. If views overlap
  // partly, the whole load is staged, as with `atomic`, to compare them first. kIgnore
  // skips this check.
  Policy shared_memory = Policy::kFail;
  // Renaming of stored keys of section `model` and of the optimizer's parameter names, in
  // this order:
  //   1. strip_prefix, such as `module.` of a DataParallel model, is removed from every
  //      key. A key without it is an error.
  //   2. add_prefix is prepended to every key.
  //   3. The first pair {pattern, replacement} of `renames` whose RE2 pattern matches the
  //      whole key replaces it; \1 is the first group of the pattern.
  // Two keys with the same new name are an error. options.selection uses the stored
  // names.
  std::string strip_prefix = {};
  std::string add_prefix = {};
  std::vector<std::pair<std::string, std::string>> renames = {};
  // Loads into temporary tensors and copies them at the end, so that a failed transfer
  // changes nothing. Needs twice the memory.
  bool atomic = false;
};

struct [[nodiscard]] LoadResult {
  absl::Status status;
  // Filled also if the load fails.
  LoadReport report;
  // The version that was loaded, with `latest` or an alias resolved.
  CheckpointInfo checkpoint;
  // The sections that were requested by name, with new tensors.
  std::map<std::string, ValueTree> sections;
};

// Loads version `name` (`models/{model}/checkpoints/` and a version, an alias or
// `latest`) into the destinations in `args`. If the transfer fails, the report lists
// which tensors hold new bytes, which are unchanged and which are undefined; see
// LoadArgs::atomic.
LoadResult LoadCheckpoint(const Client& client, std::string_view name,
                          const LoadArgs& args, const LoadOptions& options = {});

}  // namespace modelstore
