#include "client/torch/member_check.h"

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/architecture_leaf_table.h"
#include "client/torch/architecture_leaves.h"
#include "client/torch/tensor_views.h"

namespace modelstore::torch_internal {
namespace {

// Returns the tensor members of a LibTorch module; empty for other classes, derived ones
// too.
std::vector<Member> MembersOf(const torch::nn::Module& module) {
  using namespace torch::nn;  // NOLINT
  if (const LeafType* leaf = FindLeaf(module)) return leaf->members(module);
  // These are not in the table of leaves.
  if (typeid(module) == typeid(MultiheadAttentionImpl)) {
    return leaves::MembersOf<MultiheadAttentionImpl>(module);
  }
  if (typeid(module) == typeid(CrossEntropyLossImpl)) {
    return leaves::MembersOf<CrossEntropyLossImpl>(module);
  }
  if (typeid(module) == typeid(NLLLossImpl)) {
    return leaves::MembersOf<NLLLossImpl>(module);
  }
  if (typeid(module) == typeid(BCEWithLogitsLossImpl)) {
    return leaves::MembersOf<BCEWithLogitsLossImpl>(module);
  }
  return {};
}

bool IsSame(const torch::Tensor& member, const torch::Tensor& registered) {
  if (!member.defined() || !registered.defined()) {
    return member.defined() == registered.defined();
  }
  if (member.is_same(registered)) return true;
  return member.has_storage() && registered.has_storage() &&
         TensorIdentity(member) == TensorIdentity(registered);
}

// A member that is not the tensor registered under its name.
struct Reassigned {
  std::string key;
  torch::Tensor tensor;
};

void Collect(const torch::nn::Module& module, const std::string& path,
             std::vector<Reassigned>& reassigned) {
  if (const std::vector<Member> members = MembersOf(module); !members.empty()) {
    const auto parameters = module.named_parameters(/*recurse=*/false);
    const auto buffers = module.named_buffers(/*recurse=*/false);
    for (const Member& member : members) {
      const torch::Tensor* registered = parameters.find(member.name);
      if (registered == nullptr) registered = buffers.find(member.name);
      const torch::Tensor none;
      if (IsSame(member.tensor, registered == nullptr ? none : *registered)) continue;
      reassigned.push_back(
          {absl::StrCat(path, path.empty() ? "" : ".", member.name), member.tensor});
    }
  }
  for (const auto& child : module.named_children()) {
    Collect(*child.value(), absl::StrCat(path, path.empty() ? "" : ".", child.key()),
            reassigned);
  }
}

}  // namespace

absl::Status FollowMembers(const torch::nn::Module& module, std::string_view done,
                           std::vector<StateEntry>& entries) {
  std::vector<Reassigned> reassigned;
  Collect(module, "", reassigned);
  if (reassigned.empty()) return absl::OkStatus();
  std::unordered_map<std::string, const torch::Tensor*> members;
  for (const Reassigned& r : reassigned) members.emplace(r.key, &r.tensor);
  // Tensors that are used under their own name. A registered tensor whose member was
  // reassigned is not: so swapping two members does not count as tying them.
  std::unordered_set<std::string> used;
  std::unordered_set<std::string> keys;
  for (const StateEntry& entry : WalkState(module)) {
    keys.insert(entry.key);
    if (members.contains(entry.key) || !entry.tensor.has_storage()) continue;
    used.insert(TensorIdentity(entry.tensor));
  }
  std::vector<std::string> refused;
  for (const auto& [key, tensor] : reassigned) {
    const bool tied = keys.contains(key) && tensor.defined() && tensor.has_storage() &&
                      used.contains(TensorIdentity(tensor));
    if (!tied) refused.push_back(key);
  }
  if (refused.empty()) {
    for (StateEntry& entry : entries) {
      const auto found = members.find(entry.key);
      if (found != members.end()) entry.tensor = *found->second;
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the module computes with other tensors than those that would be ",
      absl::string_view(done.data(), done.size()), ": member(s) `",
      absl::StrJoin(refused, "`, `"),
      "` were assigned and not registered; change the registered tensor instead, by "
      "copy_() or set_data(), or set ignore_reassigned_members"));
}

}  // namespace modelstore::torch_internal
