#include "client/torch/shared_memory.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/internal/rpc.h"
#include "client/torch/memory_overlap.h"
#include "client/torch/tensor_views.h"
#include "modelstore/v1/model_store.pb.h"

namespace modelstore::torch_internal {
namespace shared_memory {

// Returns groups of positions whose address ranges overlap, directly or through others of
// the group, found by sweeping the sorted ranges. Only groups of two and more.
std::vector<std::vector<size_t>> GroupByAddress(const std::vector<Match>& matches) {
  std::vector<std::tuple<uintptr_t, uintptr_t, size_t>> ranges;
  for (size_t i = 0; i < matches.size(); ++i) {
    const torch::Tensor& target = matches[i].target;
    if (!target.device().is_cpu() && !target.is_cuda()) continue;
    const auto [begin, end] = Addresses(target);
    if (end > begin) ranges.emplace_back(begin, end, i);
  }
  std::sort(ranges.begin(), ranges.end());
  std::vector<std::vector<size_t>> groups;
  uintptr_t reach = 0;
  for (const auto& [begin, end, i] : ranges) {
    if (groups.empty() || begin >= reach) groups.emplace_back();
    groups.back().push_back(i);
    reach = std::max(reach, end);
  }
  std::erase_if(groups, [](const auto& group) { return group.size() < 2; });
  for (auto& group : groups) std::sort(group.begin(), group.end());
  return groups;
}

// The layout of a stored tensor's chunks, and their digests, as text for comparison.
// Empty for a tensor with more digests than one response of the server can hold.
struct Digests {
  std::string layout;
  std::string chunks;
};

// Fetches the digests of `keys` of section `model`.
absl::Status AddStoredDigests(const Client& client, const std::string& checkpoint,
                              const std::vector<std::string>& keys, Deadline deadline,
                              std::map<std::string, Digests>& digests) {
  v1::ListTensorsRequest request;
  for (const std::string& key : keys) {
    digests[key] = {};
    request.add_keys(key);
  }
  request.set_parent(checkpoint);
  request.set_section("model");
  request.set_with_digests(true);
  while (true) {
    auto page = internal::CallStore<v1::ListTensorsResponse>(client, "ListTensors",
                                                             request, deadline);
    if (absl::IsOutOfRange(page.status())) return absl::OkStatus();
    if (!page.ok()) return page.status();
    for (const v1::Tensor& tensor : page->tensors()) {
      Digests& of = digests[tensor.key()];
      for (const v1::Piece& piece : tensor.pieces()) {
        // A single chunk has the same bytes whatever chunk size was configured.
        const bool whole = piece.chunk_digests_hex_size() == 1;
        absl::StrAppend(&of.layout, absl::StrJoin(piece.offset(), ","), "/",
                        absl::StrJoin(piece.size(), ","), "/",
                        whole ? 0 : piece.chunk_size_bytes(), ";");
        absl::StrAppend(&of.chunks, absl::StrJoin(piece.chunk_digests_hex(), ","), ";");
      }
    }
    if (page->next_page_token().empty()) return absl::OkStatus();
    request.set_page_token(page->next_page_token());
  }
}

// Implements ResolveSharedMemory(). Used once.
class SharedMemoryResolver {
 public:
  SharedMemoryResolver(const Client& client, const std::string& checkpoint,
                       const PlanIndex& plan, const LoadArgs& args,
                       const LoadOptions& options, std::vector<Match>& matches,
                       LoadReport& report)
      : client_(client),
        checkpoint_(checkpoint),
        plan_(plan),
        args_(args),
        options_(options),
        matches_(matches),
        report_(report) {}

  absl::StatusOr<std::vector<std::vector<size_t>>> Run() {
    std::vector<std::vector<size_t>> open;
    for (const std::vector<size_t>& group : GroupByAddress(matches_)) {
      absl::StatusOr<std::vector<size_t>> left = MakeOne(group);
      if (!left.ok()) return left.status();
      if (left->size() < 2) continue;
      std::vector<torch::Tensor> targets;
      for (const size_t i : *left) targets.push_back(matches_[i].target);
      const absl::StatusOr<bool> share = AnyShare(targets);
      if (!share.ok()) return share.status();
      if (*share) open.push_back(*std::move(left));
    }
    return open;
  }

 private:
  // Merges the matches of a group whose targets are identical tensors. Returns the
  // positions that remain different. A position that is merged with an equal one takes
  // its plan position; of unequal ones the later position stays, as the later write wins.
  absl::StatusOr<std::vector<size_t>> MakeOne(const std::vector<size_t>& group) {
    std::vector<size_t> left;
    std::map<std::string, size_t> first;  // by identity
    for (const size_t i : group) {
      const auto [it, fresh] = first.try_emplace(TensorIdentity(matches_[i].target), i);
      const int64_t one = matches_[it->second].index, other = matches_[i].index;
      if (fresh) {
        left.push_back(i);
      } else if (plan_.Root(one) != plan_.Root(other)) {
        absl::StatusOr<std::optional<bool>> same = SameBytes(one, other);
        if (!same.ok()) return same.status();
        if (!same->has_value()) {
          left.push_back(i);
        } else if (**same) {
          matches_[i].index = one;
        } else if (args_.shared_memory == Policy::kFail) {
          return absl::FailedPreconditionError(absl::StrCat(
              "`", matches_[it->second].key, "` and `", matches_[i].key,
              "` are one tensor in the module and have different values in the "
              "checkpoint; to let the last one win set `shared_memory`"));
        } else {
          report_.overwritten.emplace_back(matches_[it->second].key, matches_[i].key);
          *std::find(left.begin(), left.end(), it->second) = i;
          it->second = i;
        }
      }
    }
    std::sort(left.begin(), left.end());
    return left;
  }

  // Whether two stored tensors have equal bytes. Nullopt if digests cannot decide: other
  // dtypes, shapes, slices or chunk layouts.
  absl::StatusOr<std::optional<bool>> SameBytes(int64_t one, int64_t other) {
    const TensorInfo& a = plan_.info(one);
    const TensorInfo& b = plan_.info(other);
    if (plan_.stored_dtype(one) != plan_.stored_dtype(other) || a.shape != b.shape ||
        !options_.slices.empty()) {
      return std::nullopt;
    }
    std::vector<std::string> unknown;
    for (const int64_t index : {one, other}) {
      if (!digests_.contains(KeyOfRoot(index))) unknown.push_back(KeyOfRoot(index));
    }
    if (!unknown.empty()) {
      absl::Status status =
          AddStoredDigests(client_, checkpoint_, unknown,
                           internal::TransferDeadline(options_.deadline), digests_);
      if (!status.ok()) return status;
    }
    const Digests& x = digests_.at(KeyOfRoot(one));
    const Digests& y = digests_.at(KeyOfRoot(other));
    if (x.layout.empty() || x.layout != y.layout) return std::nullopt;
    return x.chunks == y.chunks;
  }

  const std::string& KeyOfRoot(int64_t index) const {
    return plan_.info(plan_.Root(index)).key;
  }

  const Client& client_;
  const std::string& checkpoint_;
  const PlanIndex& plan_;
  const LoadArgs& args_;
  const LoadOptions& options_;
  std::vector<Match>& matches_;
  LoadReport& report_;
  std::map<std::string, Digests> digests_;  // by stored key
};

}  // namespace shared_memory

absl::StatusOr<std::vector<std::vector<size_t>>> ResolveSharedMemory(
    const Client& client, const std::string& checkpoint, const PlanIndex& plan,
    const LoadArgs& args, const LoadOptions& options, std::vector<Match>& matches,
    LoadReport& report) {
  if (args.shared_memory == Policy::kIgnore) return std::vector<std::vector<size_t>>();
  return shared_memory::SharedMemoryResolver(client, checkpoint, plan, args, options,
                                             matches, report)
      .Run();
}

}  // namespace modelstore::torch_internal
