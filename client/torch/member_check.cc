#include "client/torch/member_check.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/architecture_leaf_table.h"
#include "client/torch/architecture_leaves.h"
#include "client/torch/tensor_views.h"

namespace modelstore::torch_internal {
namespace {

// Empty unless `module` is exactly one of LibTorch's.
std::vector<Member> MembersOf(const torch::nn::Module& module) {
  using namespace torch::nn;  // NOLINT
  if (const LeafType* leaf = FindLeaf(module)) return leaf->members(module);
  // These have no place in the table of leaves.
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

void Collect(const torch::nn::Module& module, const std::string& path,
             std::vector<std::string>& reassigned) {
  if (const std::vector<Member> members = MembersOf(module); !members.empty()) {
    const auto parameters = module.named_parameters(/*recurse=*/false);
    const auto buffers = module.named_buffers(/*recurse=*/false);
    for (const Member& member : members) {
      const torch::Tensor* registered = parameters.find(member.name);
      if (registered == nullptr) registered = buffers.find(member.name);
      const torch::Tensor none;
      if (IsSame(member.tensor, registered == nullptr ? none : *registered)) continue;
      reassigned.push_back(absl::StrCat(path, path.empty() ? "" : ".", member.name));
    }
  }
  for (const auto& child : module.named_children()) {
    Collect(*child.value(), absl::StrCat(path, path.empty() ? "" : ".", child.key()),
            reassigned);
  }
}

}  // namespace

absl::Status CheckMembers(const torch::nn::Module& module, std::string_view done) {
  std::vector<std::string> reassigned;
  Collect(module, "", reassigned);
  if (reassigned.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the module computes with other tensors than those that would be ",
      absl::string_view(done.data(), done.size()), ": member(s) `",
      absl::StrJoin(reassigned, "`, `"),
      "` were assigned and not registered; change the registered tensor instead, by "
      "copy_() or set_data(), or set ignore_reassigned_members"));
}

}  // namespace modelstore::torch_internal
