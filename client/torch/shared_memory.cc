#include "client/torch/shared_memory.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/internal/rpc.h"
#include "client/torch/tensor_views.h"
#include "modelstore/v1/model_store.pb.h"

namespace modelstore::torch_internal {
namespace shared_memory {

// More addresses than this are not looked at one by one.
constexpr int64_t kMostMarks = int64_t{1} << 31;

// Calls `visit` with the address of every element until it returns false.
template <typename Visit>
void ForEachElement(const torch::Tensor& tensor, Visit visit) {
  if (tensor.numel() == 0) return;
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  const auto item = static_cast<int64_t>(tensor.itemsize());
  auto address = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  std::vector<int64_t> index(sizes.size(), 0);
  while (visit(address)) {
    int64_t d = tensor.dim() - 1;
    for (; d >= 0; --d) {
      address += strides[d] * item;
      if (++index[d] < sizes[d]) break;
      address -= sizes[d] * strides[d] * item;
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

// Bytes between two addresses, and which of them are taken.
class TakenBytes {
 public:
  TakenBytes(uintptr_t begin, uintptr_t end) : begin_(begin), taken_(end - begin) {}

  // Takes the tensor's; whether any was taken before, by itself too.
  bool Take(const torch::Tensor& tensor) {
    bool shared = false;
    ForEachElement(tensor, [&](uintptr_t address) {
      for (size_t i = 0; i < tensor.itemsize(); ++i) {
        auto byte = taken_[address - begin_ + i];
        shared = shared || byte;
        byte = true;
      }
      return true;
    });
    return shared;
  }

 private:
  const uintptr_t begin_;
  std::vector<bool> taken_;
};

// Strides so large that an element's address tells its index.
bool StridesNest(const torch::Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> dims;  // stride, size
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t last = 0;  // the largest offset within the dimensions so far
  for (const auto& [stride, size] : dims) {
    if (stride <= last) return false;
    last += stride * (size - 1);
  }
  return true;
}

bool ShareBytes(const torch::Tensor& a, const torch::Tensor& b) {
  const auto [a_begin, a_end] = Addresses(a);
  const auto [b_begin, b_end] = Addresses(b);
  if (std::max(a_begin, b_begin) >= std::min(a_end, b_end)) return false;
  const auto begin = std::min(a_begin, b_begin), end = std::max(a_end, b_end);
  if (static_cast<int64_t>(end - begin) > kMostMarks) return true;
  TakenBytes taken(begin, end);
  taken.Take(a);
  return taken.Take(b);
}

// Groups of positions whose addresses run into each other.
std::vector<std::vector<size_t>> NearEachOther(const std::vector<Match>& matches) {
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

// How a stored tensor is cut into chunks, and what these are known by.
struct Digests {
  std::string layout;
  std::string chunks;
};

// By key of section `model`.
absl::StatusOr<std::map<std::string, Digests>> StoredDigests(
    Client& client, const std::string& checkpoint) {
  v1::ListTensorsRequest request;
  request.set_parent(checkpoint);
  request.set_section("model");
  request.set_page_size(10'000);
  request.set_with_digests(true);
  std::map<std::string, Digests> digests;
  while (true) {
    auto page =
        internal::CallStore<v1::ListTensorsResponse>(client, "ListTensors", request);
    if (!page.ok()) return page.status();
    for (const v1::Tensor& tensor : page->tensors()) {
      Digests& of = digests[tensor.key()];
      for (const v1::Piece& piece : tensor.pieces()) {
        const bool whole = piece.chunk_digests_hex_size() == 1;
        absl::StrAppend(&of.layout, absl::StrJoin(piece.offset(), ","), "/",
                        whole ? 0 : piece.chunk_size_bytes(), ";");
        absl::StrAppend(&of.chunks, absl::StrJoin(piece.chunk_digests_hex(), ","), ";");
      }
    }
    if (page->next_page_token().empty()) return digests;
    request.set_page_token(page->next_page_token());
  }
}

class Settler {
 public:
  Settler(Client& client, const std::string& checkpoint, const PlanIndex& plan,
          const LoadArgs& args, std::vector<Match>& matches, LoadReport& report)
      : client_(client),
        checkpoint_(checkpoint),
        plan_(plan),
        args_(args),
        matches_(matches),
        report_(report) {}

  absl::StatusOr<std::vector<std::vector<size_t>>> Run() {
    std::vector<std::vector<size_t>> open;
    for (const std::vector<size_t>& group : NearEachOther(matches_)) {
      absl::StatusOr<std::vector<size_t>> left = MakeOne(group);
      if (!left.ok()) return left.status();
      if (left->size() > 1 && AnyShare(*left)) open.push_back(*std::move(left));
    }
    return open;
  }

 private:
  // Of the matches of a group those that are still different tensors.
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
          it->second = i;
        }
      }
    }
    return left;
  }

  // Nothing if it cannot be told from digests.
  absl::StatusOr<std::optional<bool>> SameBytes(int64_t one, int64_t other) {
    const TensorInfo& a = plan_.info(one);
    const TensorInfo& b = plan_.info(other);
    if (plan_.stored_dtype(one) != plan_.stored_dtype(other) || a.shape != b.shape ||
        !args_.options.slices.empty()) {
      return std::nullopt;
    }
    if (!digests_.has_value()) {
      auto digests = StoredDigests(client_, checkpoint_);
      if (!digests.ok()) return digests.status();
      digests_ = *std::move(digests);
    }
    const auto key = [this](int64_t index) { return plan_.info(plan_.Root(index)).key; };
    const Digests& x = (*digests_)[key(one)];
    const Digests& y = (*digests_)[key(other)];
    if (x.layout.empty() || x.layout != y.layout) return std::nullopt;
    return x.chunks == y.chunks;
  }

  bool AnyShare(const std::vector<size_t>& group) const {
    for (size_t i = 0; i < group.size(); ++i) {
      for (size_t j = i + 1; j < group.size(); ++j) {
        if (ShareBytes(matches_[group[i]].target, matches_[group[j]].target)) return true;
      }
    }
    return false;
  }

  Client& client_;
  const std::string& checkpoint_;
  const PlanIndex& plan_;
  const LoadArgs& args_;
  std::vector<Match>& matches_;
  LoadReport& report_;
  std::optional<std::map<std::string, Digests>> digests_;
};

// The tensor's counterpart in memory that stands for `begin`.
torch::Tensor Mirror(const torch::Tensor& tensor, uintptr_t begin, char* memory) {
  char* data = memory + (reinterpret_cast<uintptr_t>(tensor.data_ptr()) - begin);
  torch::Tensor mirror =
      torch::from_blob(data, tensor.sizes(), tensor.strides(),
                       torch::TensorOptions().dtype(tensor.scalar_type()));
  if (tensor.is_conj()) mirror = torch::conj(mirror);
  return tensor.is_neg() ? torch::_neg_view(mirror) : mirror;
}

torch::Tensor PlainOf(const torch::Tensor& tensor) {
  return tensor.resolve_conj().resolve_neg().contiguous();
}

bool SameBits(const torch::Tensor& a, const torch::Tensor& b) {
  return std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

}  // namespace shared_memory

std::pair<uintptr_t, uintptr_t> Addresses(const torch::Tensor& tensor) {
  if (tensor.numel() == 0) return {0, 0};
  int64_t last = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    last += (tensor.size(d) - 1) * tensor.stride(d);
  }
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  return {begin, begin + (last + 1) * tensor.itemsize()};
}

bool OverlapsItself(const torch::Tensor& tensor) {
  if (tensor.numel() < 2) return false;
  const at::MemOverlap overlap = at::has_internal_overlap(tensor);
  if (overlap != at::MemOverlap::TooHard) return overlap == at::MemOverlap::Yes;
  if (shared_memory::StridesNest(tensor)) return false;
  const auto [begin, end] = Addresses(tensor);
  if (static_cast<int64_t>(end - begin) > shared_memory::kMostMarks) return true;
  return shared_memory::TakenBytes(begin, end).Take(tensor);
}

absl::StatusOr<std::vector<std::vector<size_t>>> SettleSharedMemory(
    Client& client, const std::string& checkpoint, const PlanIndex& plan,
    const LoadArgs& args, std::vector<Match>& matches, LoadReport& report) {
  if (args.shared_memory == Policy::kIgnore) return std::vector<std::vector<size_t>>();
  return shared_memory::Settler(client, checkpoint, plan, args, matches, report).Run();
}

std::vector<std::pair<size_t, size_t>> Overwritten(
    const std::vector<PendingWrite>& writes) {
  using namespace shared_memory;  // NOLINT
  const c10::InferenceMode plain(false);
  const torch::NoGradGuard no_grad;
  uintptr_t begin = UINTPTR_MAX, end = 0;
  for (const PendingWrite& write : writes) {
    const auto [from, to] = Addresses(write.target);
    begin = std::min(begin, from);
    end = std::max(end, to);
  }
  begin = begin / 64 * 64;  // so that every type stays aligned
  torch::Tensor memory = torch::zeros({static_cast<int64_t>(end - begin)}, torch::kByte);
  std::vector<torch::Tensor> mirrors, values;
  for (const PendingWrite& write : writes) {
    mirrors.push_back(Mirror(write.target, begin, static_cast<char*>(memory.data_ptr())));
    values.push_back(write.value.to(torch::kCPU)
                         .view(write.target.sizes())
                         .to(write.target.scalar_type())
                         .contiguous());
    mirrors.back().copy_(values.back());
  }
  std::vector<size_t> lost;
  for (size_t i = 0; i < writes.size(); ++i) {
    if (!SameBits(PlainOf(mirrors[i]), values[i])) lost.push_back(i);
  }
  // Once more, to see which write it is that changes them.
  std::vector<std::pair<size_t, size_t>> overwritten;
  for (size_t by = 0; by < writes.size() && !lost.empty(); ++by) {
    mirrors[by].copy_(values[by]);
    std::erase_if(lost, [&](size_t i) {
      if (i >= by || SameBits(PlainOf(mirrors[i]), values[i])) return false;
      overwritten.emplace_back(i, by);
      return true;
    });
  }
  return overwritten;
}

}  // namespace modelstore::torch_internal
