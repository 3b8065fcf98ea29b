#include "client/torch/tensor_views.h"

#include <memory>
#include <sstream>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/device/device_runtime.h"
#include "client/torch/element_type.h"
#include "client/torch/placement.h"

namespace modelstore::torch_internal {
namespace {

absl::Status Refused(const std::string& name, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("tensor `", name, "` ", why));
}

std::string LayoutName(const torch::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.layout();
  return text.str();
}

// Returns the tensor as contiguous bytes on its GPU, or on the CPU for all other devices.
// Copies only if it is not in that form.
torch::Tensor PlainBytes(const torch::Tensor& tensor) {
  torch::Tensor plain = tensor.detach();
  // Lazy zero, conjugate and negative views: contiguous() keeps them, but their memory
  // has other bytes or none.
  if (plain._is_zerotensor()) plain = torch::zeros(plain.sizes(), plain.options());
  plain = plain.resolve_conj().resolve_neg();
  if (!plain.is_cuda()) plain = plain.to(torch::kCPU);
  return plain.contiguous();
}

}  // namespace

std::string TensorIdentity(const torch::Tensor& tensor) {
  return absl::StrCat(
      absl::Hex(reinterpret_cast<uintptr_t>(tensor.storage().unsafeGetStorageImpl())),
      "/", tensor.storage_offset(), "/", static_cast<int>(tensor.scalar_type()), "/",
      tensor.is_conj() ? "c" : "", tensor.is_neg() ? "n" : "", "/",
      absl::StrJoin(tensor.sizes(), ","), "/", absl::StrJoin(tensor.strides(), ","));
}

absl::Status CheckStorable(const std::string& name, const torch::Tensor& tensor) {
  if (!tensor.defined()) return Refused(name, "is undefined");
  // Nested first: most other queries throw for such a tensor.
  if (tensor.is_nested())
    return Refused(name, "is nested: only dense tensors are stored");
  if (tensor.is_meta()) return Refused(name, "is on the meta device and has no values");
  if (tensor.is_quantized()) {
    return Refused(name,
                   absl::StrCat("is quantized (", c10::toString(tensor.scalar_type()),
                                "): dequantize it before saving"));
  }
  if (tensor.layout() != torch::kStrided) {
    return Refused(name, absl::StrCat("has layout ", LayoutName(tensor),
                                      ": only dense (strided) tensors are stored"));
  }
  if (!tensor.has_storage()) return Refused(name, "has no storage of its own");
  if (absl::StatusOr<DType> dtype = DTypeFromTorch(tensor.scalar_type()); !dtype.ok()) {
    return Refused(name, absl::StrCat("has an ", dtype.status().message()));
  }
  return absl::OkStatus();
}

absl::Status ViewBuilder::Add(std::string section, std::string key,
                              const torch::Tensor& tensor, TensorRole role) {
  const std::string name = absl::StrCat(section, ":", key);
  if (absl::Status status = CheckStorable(name, tensor); !status.ok()) return status;
  TensorView view;
  view.info.section = std::move(section);
  view.info.key = std::move(key);
  view.info.dtype = *DTypeFromTorch(tensor.scalar_type());
  view.info.shape = tensor.sizes().vec();
  view.info.requires_grad = tensor.requires_grad();
  view.info.role = role;
  // A tied tensor has no bytes of its own; it refers to the first one by name.
  const auto [first, is_first] = first_.try_emplace(TensorIdentity(tensor), name, tensor);
  if (!is_first) {
    view.info.tied_to = first->second.first;
    views_.push_back(std::move(view));
    return absl::OkStatus();
  }
  device::DeviceRuntime& runtime = device::Runtime();
  auto plain = std::make_shared<torch::Tensor>(PlainBytes(tensor));
  view.info.size_bytes = static_cast<int64_t>(plain->nbytes());
  if (const int device = runtime.DeviceOf(*plain); device != kCpu) {
    device::DeviceSave& save = saves_.try_emplace(device, runtime, device).first->second;
    view.source = save.SourceFor(*plain);
    view.immutable = at_rest_;
  } else {
    view.data = plain->data_ptr();
    // A copy that was made here is private, so nobody changes it.
    view.immutable = at_rest_ || !plain->is_alias_of(tensor);
    view.owner = std::move(plain);
  }
  views_.push_back(std::move(view));
  return absl::OkStatus();
}

std::vector<int> ViewBuilder::devices() const {
  std::vector<int> devices;
  for (const auto& [device, save] : saves_) devices.push_back(device);
  return devices;
}

std::vector<TensorView> ViewBuilder::Take() {
  for (auto& [device, save] : saves_) save.Begin();
  return std::move(views_);
}

}  // namespace modelstore::torch_internal
