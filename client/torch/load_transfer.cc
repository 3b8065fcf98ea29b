#include "client/torch/load_transfer.h"

#include <algorithm>
#include <memory>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/device.h"
#include "client/torch/element_type.h"
#include "client/torch/fresh_tensors.h"
#include "client/torch/guard.h"
#include "client/torch/tensor_views.h"

namespace modelstore::torch_internal {
namespace {

using Range = std::pair<uintptr_t, uintptr_t>;

// The addresses between a CPU tensor's first and last element.
Range Addresses(const torch::Tensor& tensor) {
  if (tensor.numel() == 0) return {0, 0};
  int64_t last = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    last += (tensor.size(d) - 1) * tensor.stride(d);
  }
  const auto begin = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  return {begin, begin + (last + 1) * tensor.itemsize()};
}

// Whether bytes may be written into it without torch.
bool TakesBytes(const torch::Tensor& tensor, DType stored) {
  absl::StatusOr<DType> dtype = DTypeFromTorch(tensor.scalar_type());
  return dtype.ok() && *dtype == stored && tensor.device().is_cpu() &&
         tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg() &&
         !tensor._is_zerotensor();
}

}  // namespace

// A tensor that shares memory with another one is copied, so that the last key
// wins as in PyTorch, and no two transfers write to one place.
void Transfer::ChooseWays() {
  ways_.assign(live_.size(), Way::kCopied);
  first_.resize(live_.size());
  std::map<std::pair<int64_t, std::string>, size_t> seen;
  std::vector<std::tuple<uintptr_t, uintptr_t, size_t>> ranges;
  for (size_t i = 0; i < live_.size(); ++i) {
    const int64_t root = index_.Root(live_[i].index);
    const auto [it, is_first] =
        seen.try_emplace({root, TensorIdentity(live_[i].target)}, i);
    first_[i] = it->second;
    if (!is_first) continue;
    if (!live_[i].target.device().is_cpu()) continue;
    if (!aside_ && TakesBytes(live_[i].target, index_.info(root).dtype)) {
      ways_[i] = Way::kDirect;
    }
    const auto [begin, end] = Addresses(live_[i].target);
    if (end > begin) ranges.emplace_back(begin, end, i);
  }
  std::sort(ranges.begin(), ranges.end());
  uintptr_t reach = 0;
  size_t widest = 0;
  for (const auto& [begin, end, i] : ranges) {
    if (begin < reach) ways_[i] = ways_[widest] = Way::kCopied;
    if (end > reach) {
      reach = end;
      widest = i;
    }
  }
}

absl::Status Transfer::Allocate() {
  ChooseWays();
  for (size_t i = 0; i < live_.size(); ++i) {
    if (first_[i] != i || ways_[i] != Way::kDirect) continue;
    const auto [it, first] = landings_.try_emplace(index_.Root(live_[i].index),
                                                   Landing{live_[i].target, true});
    if (!first) ways_[i] = Way::kCopied;
  }
  std::set<int64_t> wanted;
  for (const Match& match : live_) wanted.insert(index_.Root(match.index));
  for (const auto& [index, tensor] : fresh_) wanted.insert(index_.Root(index));
  int64_t bytes = 0, small_bytes = 0;
  for (int64_t root : wanted) {
    if (landings_.count(root) > 0) continue;
    const TensorInfo& info = index_.info(root);
    absl::StatusOr<torch::ScalarType> type = DTypeToTorch(info.dtype);
    if (!type.ok()) {
      return absl::UnimplementedError(absl::StrCat(
          "tensor `", info.section, ":", info.key, "`: ", type.status().message()));
    }
    bytes += info.size_bytes;
    small_bytes += FreshTensors::SlabBytes(info.size_bytes);
  }
  if (absl::Status status = CheckHostMemory(bytes); !status.ok()) return status;
  FreshTensors maker(small_bytes);
  for (int64_t root : wanted) {
    if (landings_.count(root) > 0) continue;
    const TensorInfo& info = index_.info(root);
    landings_[root] = {maker.Make(info.shape, *DTypeToTorch(info.dtype)), false};
  }
  return absl::OkStatus();
}

absl::Status Transfer::Bind() {
  for (const auto& [root, landing] : landings_) {
    auto owner = std::make_shared<torch::Tensor>(landing.tensor);
    absl::Status status =
        plan_.Bind(static_cast<size_t>(root),
                   {landing.tensor.data_ptr(), landing.tensor.nbytes(), owner});
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

void Transfer::CopyAndBump(bool arrived) {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < live_.size(); ++i) {
    const int64_t root = index_.Root(live_[i].index);
    if (WayOf(i) == Way::kCopied && !arrived) continue;
    if (WayOf(i) == Way::kCopied) {
      // Moves the version counter itself.
      live_[i].target.copy_(landings_.at(root).tensor.view(live_[i].target.sizes()));
      continue;
    }
    const auto position = static_cast<size_t>(root);
    const bool written = arrived || plan_.touched(position) || plan_.done(position);
    // Without this autograd would go on with values that are no longer there.
    if (written && !live_[i].target.is_inference()) {
      live_[i].target.unsafeGetTensorImpl()->bump_version();
    }
  }
}

// Tied tensors share one storage again; a fresh tensor never shares with a live one.
void Transfer::FinishFresh() {
  const torch::NoGradGuard no_grad;
  std::map<int64_t, torch::Tensor> by_root;
  for (auto& [index, tensor] : fresh_) {
    const int64_t root = index_.Root(index);
    const TensorInfo& info = index_.info(index);
    auto [it, first] = by_root.try_emplace(root);
    if (first) {
      const Landing& landing = landings_.at(root);
      it->second = landing.live ? landing.tensor.detach().clone() : landing.tensor;
      tensor = it->second;
    } else if (info.requires_grad == it->second.requires_grad()) {
      tensor = it->second;
    } else {
      tensor = it->second.detach();
    }
    if (info.requires_grad && (tensor.is_floating_point() || tensor.is_complex())) {
      tensor.set_requires_grad(true);
    }
  }
}

void Transfer::Report(bool copied, LoadReport& report) const {
  for (size_t i = 0; i < live_.size(); ++i) {
    const auto root = static_cast<size_t>(index_.Root(live_[i].index));
    if (WayOf(i) == Way::kCopied) {
      (copied ? report.undefined : report.untouched).push_back(live_[i].key);
    } else if (plan_.done(root)) {
      report.loaded.push_back(live_[i].key);
    } else {
      (plan_.touched(root) ? report.undefined : report.untouched).push_back(live_[i].key);
    }
  }
}

absl::Status Transfer::Run(Deadline deadline, LoadReport& report) {
  absl::Status status = Guarded("making room for the load", [&] {
    absl::Status made = Allocate();
    return made.ok() ? Bind() : made;
  });
  if (!status.ok()) return status;
  status = plan_.Run(deadline);
  const bool arrived = status.ok();
  absl::Status copied = Guarded("copying what was loaded", [&] {
    CopyAndBump(arrived);
    if (arrived) FinishFresh();
    return absl::OkStatus();
  });
  if (arrived && copied.ok()) return absl::OkStatus();
  Report(/*copied=*/arrived, report);
  if (!arrived) {
    if (live_.empty()) return status;
    return absl::Status(
        status.code(),
        absl::StrCat(status.message(), "; of the module's tensors ", report.loaded.size(),
                     " are new, ", report.untouched.size(), " as they were, ",
                     report.undefined.size(), " undefined",
                     report.undefined.empty() ? "" : ": ",
                     absl::StrJoin(report.undefined, ", ")));
  }
  return copied;
}

}  // namespace modelstore::torch_internal
