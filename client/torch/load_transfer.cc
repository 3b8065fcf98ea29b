#include "client/torch/load_transfer.h"

#include <algorithm>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/device/device_runtime.h"
#include "client/torch/element_type.h"
#include "client/torch/fresh_tensors.h"
#include "client/torch/guard.h"
#include "client/torch/memory_overlap.h"
#include "client/torch/tensor_views.h"

namespace modelstore::torch_internal {
namespace {

bool IsOnDevice(const torch::Tensor& tensor) {
  return device::Runtime().DeviceOf(tensor) != kCpu;
}

// Whether raw bytes of dtype `stored` may be written to the tensor's memory, by the CPU
// or by a device.
bool TakesBytes(const torch::Tensor& tensor, DType stored) {
  absl::StatusOr<DType> dtype = DTypeFromTorch(tensor.scalar_type());
  return dtype.ok() && *dtype == stored &&
         (tensor.device().is_cpu() || IsOnDevice(tensor)) && tensor.is_contiguous() &&
         !tensor.is_conj() && !tensor.is_neg() && !tensor._is_zerotensor();
}

}  // namespace

// Decides for each live tensor whether it is received directly. Tensors that overlap
// others are copied instead, in order, so that the last key wins as in PyTorch and no two
// streams write to the same memory. Overlaps are found by sweeping the sorted address
// ranges.
void Transfer::ChooseCopyModes() {
  copy_modes_.assign(live_.size(), CopyMode::kCopied);
  first_.resize(live_.size());
  std::map<std::pair<int64_t, std::string>, size_t> seen;
  std::vector<std::tuple<uintptr_t, uintptr_t, size_t>> ranges;
  for (size_t i = 0; i < live_.size(); ++i) {
    const int64_t root = index_.Root(live_[i].index);
    const auto [it, is_first] =
        seen.try_emplace({root, TensorIdentity(live_[i].target)}, i);
    first_[i] = it->second;
    if (!is_first) continue;
    if (!live_[i].target.device().is_cpu() && !live_[i].target.is_cuda()) continue;
    // A root position with a place on a device is also requested as a fresh tensor there,
    // so it is received into that one.
    if (!aside_ && PlaceOf(root) == kCpu &&
        TakesBytes(live_[i].target, index_.info(root).dtype)) {
      copy_modes_[i] = CopyMode::kDirect;
    }
    const auto [begin, end] = Addresses(live_[i].target);
    if (end > begin) ranges.emplace_back(begin, end, i);
  }
  std::sort(ranges.begin(), ranges.end());
  // The end of the range that reaches farthest so far, and its position.
  uintptr_t reach = 0;
  size_t widest = 0;
  for (const auto& [begin, end, i] : ranges) {
    if (begin < reach) copy_modes_[i] = copy_modes_[widest] = CopyMode::kCopied;
    if (end > reach) {
      reach = end;
      widest = i;
    }
  }
}

void Transfer::AddShared(std::vector<std::vector<size_t>> groups, Policy policy) {
  shared_ = std::move(groups);
  shared_policy_ = policy;
  aside_ = aside_ || !shared_.empty();
}

// Groups are checked one after another, so the largest determines the memory.
int64_t Transfer::BytesToCheck() const {
  int64_t most = 0;
  for (const std::vector<size_t>& group : shared_) {
    std::vector<torch::Tensor> targets;
    for (const size_t i : group) targets.push_back(live_[i].target);
    most = std::max(most, OverwrittenBytes(targets));
  }
  return most;
}

// Called after everything has arrived and before anything is written.
absl::Status Transfer::CheckShared(LoadReport& report) const {
  for (const std::vector<size_t>& group : shared_) {
    std::vector<PendingWrite> writes;
    for (const size_t i : group) {
      const Landing& landing = landings_.at(index_.Root(live_[i].index));
      writes.push_back({live_[i].target, landing.tensor});
    }
    for (const auto& [lost, by] : Overwritten(writes)) {
      const std::string &name = live_[group[lost]].key, &other = live_[group[by]].key;
      if (shared_policy_ == Policy::kFail) {
        return absl::FailedPreconditionError(
            absl::StrCat("`", name, "` and `", other,
                         "` share memory in the module, and their values "
                         "in the checkpoint do not agree; to let the last one win set "
                         "`shared_memory`"));
      }
      report.overwritten.emplace_back(name, other);
    }
  }
  return absl::OkStatus();
}

int Transfer::PlaceOf(int64_t root) const {
  const auto it = places_.find(root);
  return it == places_.end() ? kCpu : it->second;
}

// Root positions that have no direct destination, and the bytes of each.
absl::StatusOr<Transfer::Bytes> Transfer::BytesToAllocate() const {
  Bytes need;
  for (const Match& match : live_) need[index_.Root(match.index)] = 0;
  for (const auto& [index, tensor] : fresh_) need[index_.Root(index)] = 0;
  for (const auto& [root, landing] : landings_) need.erase(root);
  for (auto& [root, bytes] : need) {
    const TensorInfo& info = index_.info(root);
    absl::StatusOr<torch::ScalarType> type = DTypeToTorch(info.dtype);
    if (!type.ok()) {
      return absl::UnimplementedError(absl::StrCat(
          "tensor `", info.section, ":", info.key, "`: ", type.status().message()));
    }
    bytes = info.size_bytes;
  }
  return need;
}

absl::Status Transfer::Allocate(LoadReport& report) {
  ChooseCopyModes();
  for (size_t i = 0; i < live_.size(); ++i) {
    if (first_[i] != i || copy_modes_[i] != CopyMode::kDirect) continue;
    const auto [it, first] = landings_.try_emplace(index_.Root(live_[i].index),
                                                   Landing{live_[i].target, true});
    // Another live tensor already receives these bytes; this one is copied from it.
    if (!first) copy_modes_[i] = CopyMode::kCopied;
  }
  absl::StatusOr<Bytes> need = BytesToAllocate();
  if (!need.ok()) return need.status();
  std::set<int> devices;
  for (const auto& [root, bytes] : *need) devices.insert(PlaceOf(root));
  devices.erase(kCpu);
  for (const int device : devices) {
    absl::Status status = Guarded(absl::StrCat("making room on cuda:", device),
                                  [&] { return AllocateOn(device, *need); });
    if (status.ok()) continue;
    if (!falls_back_ || !absl::IsResourceExhausted(status)) return status;
    // Everything on this device goes to the CPU, including what was already allocated.
    report.fell_back.emplace_back(status.message());
    for (auto& [root, place] : places_) {
      if (place != device) continue;
      place = kCpu;
      const auto landing = landings_.find(root);
      if (landing != landings_.end() && !landing->second.live) landings_.erase(landing);
    }
  }
  return AllocateOn(kCpu, *need);
}

absl::Status Transfer::AllocateOn(int device, const Bytes& need) {
  // Granularity of torch's allocator on devices, in bytes.
  constexpr int64_t kRounding = 512;
  int64_t total = 0, small = 0;
  for (const auto& [root, bytes] : need) {
    if (PlaceOf(root) != device) continue;
    total += device == kCpu ? bytes : (bytes + kRounding - 1) / kRounding * kRounding;
    small += FreshTensors::SlabBytes(bytes);
  }
  absl::Status status = device == kCpu ? CheckHostMemory(total + BytesToCheck())
                                       : CheckDeviceMemory(device, total);
  if (!status.ok()) return status;
  const c10::InferenceMode training(false);
  FreshTensors maker(small);
  for (const auto& [root, bytes] : need) {
    if (PlaceOf(root) != device) continue;
    const TensorInfo& info = index_.info(root);
    const torch::ScalarType type = *DTypeToTorch(info.dtype);
    landings_[root] = {device == kCpu ? maker.Make(info.shape, type)
                                      : device::Runtime().Empty(info.shape, type, device),
                       false};
  }
  return absl::OkStatus();
}

absl::Status Transfer::Bind() {
  device::DeviceRuntime& runtime = device::Runtime();
  for (const auto& [root, landing] : landings_) {
    WritableBuffer buffer{landing.tensor.data_ptr(), landing.tensor.nbytes(),
                          std::make_shared<torch::Tensor>(landing.tensor), nullptr};
    const int device = runtime.DeviceOf(landing.tensor);
    if (device != kCpu) {
      buffer.data = nullptr;
      device::DeviceLoad& load =
          loads_.try_emplace(device, runtime, device).first->second;
      buffer.sink = load.SinkFor(landing.tensor);
    }
    absl::Status status = plan_.Bind(static_cast<size_t>(root), std::move(buffer));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Waits for the copies to devices. Called however the transfer ended, because the report
// must not call a tensor loaded while bytes are still being copied to it.
absl::Status Transfer::FinishDevices(Deadline deadline) {
  absl::Status status;
  for (auto& [device, load] : loads_) {
    const std::string error = load.Finish(deadline);
    if (error.empty()) continue;
    devices_failed_ = true;
    status.Update(
        absl::InternalError(absl::StrCat("loading to cuda:", device, ": ", error)));
  }
  return status;
}

void Transfer::CopyAndIncrementVersions(bool arrived) {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < live_.size(); ++i) {
    const int64_t root = index_.Root(live_[i].index);
    if (CopyModeOf(i) == CopyMode::kCopied && !arrived) continue;
    if (CopyModeOf(i) == CopyMode::kCopied) {
      // copy_() increments the version counter.
      live_[i].target.copy_(landings_.at(root).tensor.view(live_[i].target.sizes()));
      continue;
    }
    const auto position = static_cast<size_t>(root);
    const bool written = arrived || plan_.touched(position) || plan_.done(position);
    // Otherwise autograd would not notice that saved values were overwritten and would
    // compute wrong gradients.
    if (written && !live_[i].target.is_inference()) {
      live_[i].target.unsafeGetTensorImpl()->bump_version();
    }
  }
}

// Makes tied fresh tensors share storage, and sets requires_grad. A fresh tensor never
// shares memory with a live one.
void Transfer::FinishFresh() {
  const c10::InferenceMode training(false);
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
    if (CopyModeOf(i) == CopyMode::kCopied) {
      (copied ? report.undefined : report.untouched).push_back(live_[i].key);
    } else if (plan_.done(root) && !(devices_failed_ && IsOnDevice(live_[i].target))) {
      report.loaded.push_back(live_[i].key);
    } else {
      (plan_.touched(root) ? report.undefined : report.untouched).push_back(live_[i].key);
    }
  }
}

absl::Status Transfer::Run(Deadline deadline, LoadReport& report) {
  absl::Status status = Guarded("making room for the load", [&] {
    absl::Status made = Allocate(report);
    return made.ok() ? Bind() : made;
  });
  if (!status.ok()) return status;
  status = plan_.Run(deadline);
  // At least 10 s, even if the transfer used up the deadline.
  absl::Status placed =
      FinishDevices(std::max(deadline, After(std::chrono::seconds(10))));
  if (status.ok()) status = placed;
  if (status.ok()) {
    status = Guarded("comparing what shares memory", [&] { return CheckShared(report); });
  }
  const bool arrived = status.ok();
  absl::Status copied = Guarded("copying what was loaded", [&] {
    CopyAndIncrementVersions(arrived);
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
