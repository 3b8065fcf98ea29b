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
// Mirrors torch.save / Module.state_dict / Module.load_state_dict and
// Optimizer.state_dict / load_state_dict. Nothing here throws: what torch throws
// becomes a status.
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

// Names and tensors in order: what Module.state_dict() returns in Python.
using StateDict = std::vector<std::pair<std::string, torch::Tensor>>;

// Parameters and buffers of a module under their state-dict keys, in PyTorch's
// order: per module its parameters, then its buffers, then its children.
// The tensors are those of the module, not copies.
StateDict GetStateDict(const torch::nn::Module& module);

// The state of the CPU generator, for a section, and back: as
// torch.get_rng_state / torch.set_rng_state. A uint8 tensor.
torch::Tensor GetCpuRngState();
absl::Status SetCpuRngState(const torch::Tensor& state);

// A value tree with the tensors that it names.
struct ValueTree {
  Value value;
  std::map<std::string, torch::Tensor> tensors;
};

// What to save. Pointers are not owned; all but one of module and state_dict
// may be left out.
struct SaveArgs {
  const torch::nn::Module* module = nullptr;
  // Instead of a module.
  const StateDict* state_dict = nullptr;
  // Tensors that belong to the model's state and to no module given here, such as a
  // temperature that is trained, or a second network:
  //   SaveArgs args = {.module = clip.get(), .extra_tensors = {{"logit_scale", scale}}};
  //   for (auto& [key, tensor] : GetStateDict(*critic)) {
  //     args.extra_tensors.emplace_back("critic." + key, tensor);
  //   }
  // Saved in section `model` under these names, after the module's own; give the same
  // to LoadArgs.
  StateDict extra_tensors = {};
  // Any of LibTorch's. Its parameters are named by identity with the tensors of module
  // (or state_dict) and extra_tensors. INVALID_ARGUMENT, telling group, position and
  // shape, if one of them is none of those. A parameter that it holds twice (tied
  // weights) is saved once, as in PyTorch. Without a module and names the state is saved
  // without names.
  torch::optim::Optimizer* optimizer = nullptr;
  // Further ones by name, each saved as `optimizer` is, in section `optimizer.NAME`;
  // INVALID_ARGUMENT if that is no section's id. Of a GAN:
  //   {{"generator", &generator_adam}, {"critic", &critic_adam}}
  std::map<std::string, torch::optim::Optimizer*> optimizers = {};
  CheckpointMetadata metadata = {};
  // Further sections by name, such as `hyperparameters`, `extra`.
  std::map<std::string, ValueTree> sections = {};
  // Saves the state of the CPU generator in section `rng`, and that of each GPU from
  // which tensors are saved.
  bool rng = false;
  // RE2 patterns of whole keys: buffers that are no part of the state, as PyTorch's
  // register_buffer(persistent=False), which LibTorch lacks.
  std::vector<std::string> non_persistent = {};
  // StepLR, or what else derives from LRScheduler: its count of steps and StepLR's
  // `step_size` and `gamma`, in section `scheduler` and Python's layout. The learning
  // rates are the optimizer's.
  const torch::optim::LRScheduler* scheduler = nullptr;
  // Further ones by name, each saved as `scheduler` is, in section `scheduler.NAME`.
  std::map<std::string, const torch::optim::LRScheduler*> schedulers = {};
  // A member of one of LibTorch's modules that was assigned another tensor is used by
  // forward(), and the registered one is not. A tensor that is registered elsewhere in
  // the module ties the two (`decoder->weight = encoder->weight`): saved as tied. For any
  // other (`bn->running_mean = t`) INVALID_ARGUMENT names the member. If this is set, the
  // registered tensors are saved. Of a class of your own the library cannot tell.
  bool ignore_reassigned_members = false;
  std::string code_commit = {};
  // See SaveContent.
  std::vector<Attachment> attachments = {};
  // Stores the module's architecture: see architecture.h.
  bool architecture = true;
  // How the containers among its modules run their children, by path (the module
  // itself is the empty path): names of children and functions of a closed set, in
  // order. A Sequential needs none. Of a VGG:
  //   {{"", {"features", "avgpool", "flatten(1)", "classifier"}}}
  // A residual block ends in "add" (its input) or "add(downsample)".
  std::map<std::string, std::vector<std::string>> forward = {};
};

// Returns when the version is durable. While it runs the tensors must not
// change.
[[nodiscard]] absl::StatusOr<CheckpointInfo> SaveCheckpoint(
    const Client& client, std::string_view parent, const SaveArgs& args,
    const SaveOptions& options = {});

// Returns once every tensor is found and named; the values stored are those at
// this call, provided that the tensors do not change before Staged(). Tensors that are
// not contiguous are copied before it returns, as are the generators' states and the
// optimizer's scalars. Tensors on a GPU are saved as they are after the work that is
// queued on its current stream (of the calling thread) at this call; they are copied on
// another stream, into page-locked memory as large as they are, and Staged() tells when
// that is over. If options.max_staging_bytes are fewer, they are copied as they are sent,
// and Staged() comes once all were. What cannot be saved is told by every wait of the
// handle.
SaveHandle SaveCheckpointAsync(const Client& client, std::string_view parent,
                               const SaveArgs& args, const SaveOptions& options = {});

enum class Policy : uint8_t {
  kFail,    // refuse, before anything is touched
  kReport,  // go on, and list it in the report
  kIgnore,
};

// Where to load to, and how strict to be. Which tensors come, as what type and to which
// device, is in LoadOptions. options.selection.sections are further sections to return in
// LoadResult.sections, beside those that the members here take: all that are in the
// checkpoint if neither module, state_dict, extra_tensors nor optimizer is given and none
// is named. options.device is that of fresh tensors, PyTorch's map_location. A module's
// tensors stay where they are, and its optimizer's go with them. No GPU but those named
// is touched. What a load needs and what a device has free are compared before anything
// is allocated: RESOURCE_EXHAUSTED names both.
struct LoadArgs {
  torch::nn::Module* module = nullptr;
  // Instead of a module: filled with fresh tensors of section `model`.
  StateDict* state_dict = nullptr;
  // As when saving: filled in place, and as strict as if the module had them. Without a
  // module they are all that is filled.
  StateDict extra_tensors = {};
  // State goes by parameter name: give module and extra_tensors as when saving. For
  // state without names, as Python's, see parameter_order. Replaced as a whole, at the
  // end, its options with it. New state tensors can be trained with even if the load
  // runs in inference mode, as can all fresh tensors.
  torch::optim::Optimizer* optimizer = nullptr;
  // Further ones by name, as when saving. Policies hold for each of them. All are checked
  // before any is replaced.
  std::map<std::string, torch::optim::Optimizer*> optimizers = {};
  // Restores the generators from section `rng`. Those of GPUs that this process does not
  // have, or that hold the module's tensors and are not stored, are listed in the report
  // as skipped.
  bool rng = false;
  // As when saving: such a buffer is neither missing nor loaded, and unexpected
  // where it is stored.
  std::vector<std::string> non_persistent = {};
  // Gets the count of steps of section `scheduler`; what it did to the learning rates
  // comes with the optimizer. Its settings stay: see settings.
  torch::optim::LRScheduler* scheduler = nullptr;
  // Further ones by name, as when saving.
  std::map<std::string, torch::optim::LRScheduler*> schedulers = {};
  // As when saving: loads the registered tensors, and forward() uses the others.
  bool ignore_reassigned_members = false;
  // Exceptions to options.device: {pattern, device}, the first that matches decides. RE2
  // patterns of a whole `section:key`, or of a key of section `model`; names as they are
  // here. Tied tensors go where the first of them goes.
  std::vector<std::pair<std::string, std::string>> placement = {};
  // `cpu`: takes what a device has no room for, and all of a device that this process
  // does not have; the report says so in `fell_back`. Empty: the load is refused.
  std::string fallback = {};
  // PyTorch's: false means that missing and unexpected keys are reported only.
  // Set kinds below to decide each by itself. Unexpected is also a key below the
  // name of a tensor (`weight.old`), as in PyTorch 2; 1.13 overlooks it.
  bool strict = true;
  std::optional<Policy> missing = {};
  std::optional<Policy> unexpected = {};
  // Fails even with strict = false, as in PyTorch.
  Policy shape = Policy::kFail;
  // Casts from float to float are done and reported, by the server where the module's
  // tensors are all of one narrower type; any other change of dtype fails unless
  // allowed here. (PyTorch casts in silence.) options.target_dtype is
  // for fresh tensors, or saves bytes where the module's tensors are of that type:
  // refused where it would lose digits on the way into a wider one, and with an
  // optimizer.
  Policy dtype = Policy::kFail;
  // Sections that are asked for (by module, state_dict, an optimizer, rng, a scheduler
  // or name) and that the checkpoint does not have. If the load continues, what they
  // would fill stays unchanged.
  Policy absent_sections = Policy::kFail;
  // An optimizer's options (`lr`, `betas`) that differ from the stored ones: those win,
  // as in PyTorch, unless this refuses.
  Policy hyperparameters = Policy::kReport;
  // Settings that differ and that a load cannot change here: a StepLR's `step_size` and
  // `gamma`, which stay (PyTorch takes the stored ones), those of another scheduler, and
  // an optimizer of another class that has the same state (AdamW's into Adam).
  Policy settings = Policy::kFail;
  // Optimizer state without names, stored or here, goes by position, as in PyTorch. kFail
  // refuses it if names are stored and none are known here, or if two parameters could be
  // mistaken for each other: two of one shape, or two without state in groups with
  // different options. kReport and kIgnore accept it. Names on both sides always decide.
  // LoadReport.inferred tells for which optimizers positions were used.
  Policy parameter_order = Policy::kFail;
  // Names that are one memory here, whole or in part, and are stored with different
  // values: the last would win, as in PyTorch. If views overlap in part, the whole load
  // goes aside, as with `atomic`, and they are compared first. kIgnore does without.
  Policy shared_memory = Policy::kFail;
  // Names of section `model`, and of the optimizer's parameters, from what they are
  // in the checkpoint to what they are here. First a prefix is taken off, as
  // `module.` of a model that DataParallel held; it is an error if any key lacks it.
  // Then a prefix is put before every key. Then the first of `renames` that matches
  // the whole key (RE2) gives the new one, \1 for its first group. Two keys that
  // would be one are an error. options.selection speaks of stored names.
  std::string strip_prefix = {};
  std::string add_prefix = {};
  std::vector<std::pair<std::string, std::string>> renames = {};
  // Loads aside first and copies at the end: a failed transfer leaves every
  // byte as it was. Twice the memory.
  bool atomic = false;
};

struct [[nodiscard]] LoadResult {
  absl::Status status;
  LoadReport report;
  CheckpointInfo checkpoint;
  // The sections asked for, with fresh tensors.
  std::map<std::string, ValueTree> sections;
};

LoadResult LoadCheckpoint(const Client& client, std::string_view name,
                          const LoadArgs& args, const LoadOptions& options = {});

}  // namespace modelstore
