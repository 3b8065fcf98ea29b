#include "client/torch/memory_overlap.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <cstring>

namespace modelstore::torch_internal {
namespace memory_overlap {

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
  if (static_cast<int64_t>(end - begin) > memory_overlap::kMostMarks) return true;
  return memory_overlap::TakenBytes(begin, end).Take(tensor);
}

bool ShareBytes(const torch::Tensor& a, const torch::Tensor& b) {
  const auto [a_begin, a_end] = Addresses(a);
  const auto [b_begin, b_end] = Addresses(b);
  if (std::max(a_begin, b_begin) >= std::min(a_end, b_end)) return false;
  const auto begin = std::min(a_begin, b_begin), end = std::max(a_end, b_end);
  // Each without gaps, or too long to look.
  if (a.is_contiguous() && b.is_contiguous()) return true;
  if (static_cast<int64_t>(end - begin) > memory_overlap::kMostMarks) return true;
  memory_overlap::TakenBytes taken(begin, end);
  taken.Take(a);
  return taken.Take(b);
}

std::vector<std::pair<size_t, size_t>> Overwritten(
    const std::vector<PendingWrite>& writes) {
  using namespace memory_overlap;  // NOLINT
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
