#include "client/torch/state_dict.h"

#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "absl/strings/str_cat.h"

namespace modelstore {
namespace torch_internal {
namespace {

// Returns `_version` of PyTorch's class: 2 for batch and instance normalisation (which
// added num_batches_tracked), 1 for all others.
int64_t ModuleVersion(const torch::nn::Module& module) {
  using namespace torch::nn;  // NOLINT
  const bool normalises = module.as<BatchNorm1d>() || module.as<BatchNorm2d>() ||
                          module.as<BatchNorm3d>() || module.as<InstanceNorm1d>() ||
                          module.as<InstanceNorm2d>() || module.as<InstanceNorm3d>();
  return normalises ? 2 : 1;
}

// Undefined parameters and buffers, such as the bias of Linear(bias=false), are not part
// of the state, as in PyTorch.
void Walk(const torch::nn::Module& module, const KeyPatterns& non_persistent,
          const std::string& prefix, std::vector<StateEntry>& entries) {
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    if (!parameter.value().defined()) continue;
    entries.push_back(
        {prefix + parameter.key(), parameter.value(), TensorRole::kParameter});
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/false)) {
    const std::string key = prefix + buffer.key();
    if (!buffer.value().defined() || non_persistent.Match(key)) continue;
    const bool later = buffer.key() == "num_batches_tracked";
    entries.push_back(
        {key, buffer.value(), TensorRole::kBuffer, later ? ModuleVersion(module) : 1});
  }
  for (const auto& child : module.named_children()) {
    Walk(*child.value(), non_persistent, prefix + child.key() + ".", entries);
  }
}

void WalkMetadata(const torch::nn::Module& module, const std::string& path,
                  Value& metadata) {
  metadata.Set(path, Value::Dict({{"version", ModuleVersion(module)}}));
  for (const auto& child : module.named_children()) {
    WalkMetadata(*child.value(), path.empty() ? child.key() : path + "." + child.key(),
                 metadata);
  }
}

// `keys` are the stored keys of this module's subtree, including `prefix`.
void WalkUnexpected(const torch::nn::Module& module, const KeyPatterns& non_persistent,
                    const std::string& prefix, const std::vector<std::string_view>& keys,
                    std::vector<std::string>& unexpected) {
  // Names that this module itself has; keys without a dot must be among them.
  std::unordered_set<std::string> tensors;
  for (const auto& parameter : module.named_parameters(/*recurse=*/false)) {
    if (parameter.value().defined()) tensors.insert(parameter.key());
  }
  for (const auto& buffer : module.named_buffers(/*recurse=*/false)) {
    if (!buffer.value().defined() || non_persistent.Match(prefix + buffer.key()))
      continue;
    tensors.insert(buffer.key());
  }
  const auto children = module.named_children();
  std::unordered_map<std::string, std::vector<std::string_view>> below;
  // PyTorch reports it before all other keys of the module.
  constexpr std::string_view kExtraState = "_extra_state";
  for (std::string_view key : keys) {
    if (key.substr(prefix.size()) == kExtraState) unexpected.emplace_back(key);
  }
  for (std::string_view key : keys) {
    const std::string_view rest = key.substr(prefix.size());
    if (rest == kExtraState) continue;
    const size_t dot = rest.find('.');
    const std::string first(rest.substr(0, dot));
    if (dot == std::string_view::npos ? tensors.count(first) > 0
                                      : children.contains(first)) {
      if (dot != std::string_view::npos) below[first].push_back(key);
    } else {
      unexpected.emplace_back(key);
    }
  }
  for (const auto& child : children) {
    WalkUnexpected(*child.value(), non_persistent, prefix + child.key() + ".",
                   below[child.key()], unexpected);
  }
}

}  // namespace

std::vector<StateEntry> WalkState(const torch::nn::Module& module,
                                  const KeyPatterns& non_persistent) {
  std::vector<StateEntry> entries;
  Walk(module, non_persistent, "", entries);
  return entries;
}

std::vector<StateEntry> WalkState(const StateDict& state_dict) {
  std::vector<StateEntry> entries;
  entries.reserve(state_dict.size());
  for (const auto& [key, tensor] : state_dict) entries.push_back({key, tensor});
  return entries;
}

absl::Status AddExtra(const StateDict& extra, std::vector<StateEntry>& entries) {
  if (extra.empty()) return absl::OkStatus();
  std::unordered_set<std::string> taken;
  for (const StateEntry& entry : entries) taken.insert(entry.key);
  for (const auto& [key, tensor] : extra) {
    if (!taken.insert(key).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "extra_tensors: `", key, "` is the name of another tensor already"));
    }
    if (!tensor.defined()) {
      return absl::InvalidArgumentError(
          absl::StrCat("extra_tensors: `", key, "` is undefined"));
    }
    entries.push_back(
        {key, tensor,
         tensor.requires_grad() ? TensorRole::kParameter : TensorRole::kUnspecified});
  }
  return absl::OkStatus();
}

Value StateMetadata(const torch::nn::Module& module) {
  Value metadata = Value::Dict();
  WalkMetadata(module, "", metadata);
  return metadata;
}

std::vector<std::string> UnexpectedKeys(const torch::nn::Module& module,
                                        const KeyPatterns& non_persistent,
                                        const std::vector<std::string>& stored) {
  std::vector<std::string> unexpected;
  WalkUnexpected(module, non_persistent, "", {stored.begin(), stored.end()}, unexpected);
  return unexpected;
}

}  // namespace torch_internal

StateDict GetStateDict(const torch::nn::Module& module) {
  StateDict state_dict;
  for (torch_internal::StateEntry& entry : torch_internal::WalkState(module)) {
    state_dict.emplace_back(std::move(entry.key), std::move(entry.tensor));
  }
  return state_dict;
}

}  // namespace modelstore
