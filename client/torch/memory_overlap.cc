#include "client/torch/memory_overlap.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "client/torch/placement.h"

namespace modelstore::torch_internal {
namespace memory_overlap {

// Largest address range that OverlapsItself() examines: 2 GiB.
constexpr int64_t kMaxAddresses = int64_t{1} << 31;

// Calls `visit` with the address of every element, in row-major order, until it returns
// false.
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

// A bitmap of the addresses from `begin` to `end` with one bit per `unit` bytes. Every
// tensor must start at a multiple of `unit` from `begin` and have elements of a multiple
// of `unit`.
class TakenUnits {
 public:
  TakenUnits(uintptr_t begin, uintptr_t end, uintptr_t unit)
      : begin_(begin), unit_(unit), taken_((end - begin) / unit) {}

  // Marks the units of the tensor. Returns true at the first unit that was already
  // marked, by an earlier tensor or by this one.
  bool Take(const torch::Tensor& tensor) {
    const uintptr_t units = tensor.itemsize() / unit_;
    bool shared = false;
    ForEachElement(tensor, [&](uintptr_t address) {
      const uintptr_t first = (address - begin_) / unit_;
      for (uintptr_t i = first; i < first + units; ++i) {
        shared = shared || taken_[i];
        taken_[i] = true;
      }
      return !shared;
    });
    return shared;
  }

 private:
  const uintptr_t begin_, unit_;
  std::vector<bool> taken_;
};

// The address range that all tensors span together.
std::pair<uintptr_t, uintptr_t> AddressesOfAll(
    const std::vector<torch::Tensor>& tensors) {
  uintptr_t begin = UINTPTR_MAX, end = 0;
  for (const torch::Tensor& tensor : tensors) {
    const auto [from, to] = Addresses(tensor);
    if (to == from) continue;
    begin = std::min(begin, from);
    end = std::max(end, to);
  }
  return {std::min(begin, end), end};
}

// Fast sufficient test for sharing: the first element of a tensor lies inside another
// tensor without gaps, or two tensors start at the same address.
bool AnyStartsInsideAnother(const std::vector<torch::Tensor>& tensors) {
  std::vector<std::tuple<uintptr_t, uintptr_t, bool>> ranges;
  for (const torch::Tensor& tensor : tensors) {
    const auto [begin, end] = Addresses(tensor);
    if (end > begin)
      ranges.emplace_back(begin, end, tensor.is_non_overlapping_and_dense());
  }
  std::sort(ranges.begin(), ranges.end());
  uintptr_t last = 0, reach = 0;  // previous begin; farthest end of tensors without gaps
  for (const auto& [begin, end, dense] : ranges) {
    if (begin < reach || begin == last) return true;
    last = begin;
    if (dense) reach = std::max(reach, end);
  }
  return false;
}

// Whether each stride exceeds the extent of all smaller dimensions. Then no two indexes
// have the same address, and the tensor does not overlap itself.
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

// Returns a view like `tensor` in `memory`, which stands for the addresses from `begin`.
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

}  // namespace memory_overlap

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
  if (memory_overlap::StridesNest(tensor)) return false;
  const auto [begin, end] = Addresses(tensor);
  if (static_cast<int64_t>(end - begin) > memory_overlap::kMaxAddresses) return true;
  return memory_overlap::TakenUnits(begin, end, tensor.itemsize()).Take(tensor);
}

absl::StatusOr<bool> AnyShare(const std::vector<torch::Tensor>& tensors) {
  if (memory_overlap::AnyStartsInsideAnother(tensors)) return true;
  const auto [begin, end] = memory_overlap::AddressesOfAll(tensors);
  // The greatest unit that divides all start offsets and element sizes keeps the bitmap
  // small.
  uintptr_t unit = 0;
  for (const torch::Tensor& tensor : tensors) {
    if (tensor.numel() == 0) continue;
    unit = std::gcd(
        unit, std::gcd(uintptr_t{tensor.itemsize()}, Addresses(tensor).first - begin));
  }
  if (unit == 0) return false;
  const auto bytes = static_cast<int64_t>((end - begin) / unit / 8);
  if (absl::Status status = CheckHostMemory(bytes); !status.ok()) return status;
  memory_overlap::TakenUnits taken(begin, end, unit);
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const torch::Tensor& tensor) { return taken.Take(tensor); });
}

int64_t OverwrittenBytes(const std::vector<torch::Tensor>& targets) {
  const auto [begin, end] = memory_overlap::AddressesOfAll(targets);
  auto bytes = static_cast<int64_t>(end - begin);
  for (const torch::Tensor& target : targets) {
    bytes += static_cast<int64_t>(target.nbytes());
  }
  return bytes;
}

std::vector<std::pair<size_t, size_t>> Overwritten(
    const std::vector<PendingWrite>& writes) {
  using namespace memory_overlap;  // NOLINT
  const c10::InferenceMode plain(false);
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> targets;
  for (const PendingWrite& write : writes) targets.push_back(write.target);
  auto [begin, end] = AddressesOfAll(targets);
  begin = begin / 64 * 64;  // keeps the alignment of every element type
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
  // After all writes, a mirror that differs from its value was overwritten.
  std::vector<size_t> lost;
  for (size_t i = 0; i < writes.size(); ++i) {
    if (!SameBits(PlainOf(mirrors[i]), values[i])) lost.push_back(i);
  }
  // Repeats the writes to find the one that changes each of them.
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
