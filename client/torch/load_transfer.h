// Transfers the bytes of a plan into tensors: directly where possible (to a device
// through page-locked memory), otherwise into a temporary tensor followed by copy_().
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "client/torch/device/device_load.h"
#include "client/torch/load_module.h"
#include "client/torch/placement.h"
#include "modelstore/client.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// One transfer. Live tensors belong to the module and are filled in place; fresh tensors
// are created here. Tensors of the plan that are tied share one root position, whose
// bytes are received once. Usage: Add*(), Run(), Fresh(). Not thread-safe.
class Transfer {
 public:
  // `plan` and `index` must outlive this. `aside`: live tensors are written only after
  // all bytes have arrived. `falls_back`: tensors go to the CPU if their device has no
  // room.
  Transfer(LoadPlan& plan, const PlanIndex& index, bool aside, bool falls_back)
      : plan_(plan), index_(index), aside_(aside), falls_back_(falls_back) {}

  // The live tensors, in the order in which PyTorch would copy.
  void AddLive(std::vector<Match> matches) { live_ = std::move(matches); }
  // Creates a fresh tensor for plan position `index` on `device`. Tied tensors share the
  // device of the first that is added.
  void AddFresh(int64_t index, int device) {
    fresh_.insert({index, torch::Tensor()});
    places_.try_emplace(index_.Root(index), device);
  }

  // Groups of positions in the live tensors that share memory partly. If there are any,
  // all tensors are loaded aside, and the groups are checked before anything is written.
  // `policy` for values that a later write would change: kFail or kReport.
  void AddShared(std::vector<std::vector<size_t>> groups, Policy policy);

  // Allocates, fetches and copies. Increments the version counter of every live tensor
  // that was or may have been written, on failure too. On failure the report lists the
  // state of each live tensor.
  absl::Status Run(Deadline deadline, LoadReport& report);

  // The tensor of AddFresh(index). Call it after Run() succeeded.
  torch::Tensor Fresh(int64_t index) const { return fresh_.at(index); }

 private:
  enum class CopyMode : uint8_t {
    kDirect,  // received directly into the tensor
    kCopied,  // copied by copy_() once everything has arrived
  };
  // The tensor that the bytes of one root position are received into.
  struct Landing {
    torch::Tensor tensor;
    bool live = false;  // belongs to the module
  };

  using Bytes = std::map<int64_t, int64_t>;  // root position to bytes

  void ChooseCopyModes();
  CopyMode CopyModeOf(size_t i) const { return copy_modes_[first_[i]]; }
  int PlaceOf(int64_t root) const;
  absl::StatusOr<Bytes> BytesToAllocate() const;
  // One pass per device. The CPU is last, because it takes what does not fit elsewhere.
  absl::Status Allocate(LoadReport& report);
  absl::Status AllocateOn(int device, const Bytes& need);
  absl::Status Bind();
  absl::Status FinishDevices(Deadline deadline);
  // Upper bound of the memory that CheckShared() needs.
  int64_t BytesToCheck() const;
  absl::Status CheckShared(LoadReport& report) const;
  void CopyAndIncrementVersions(bool arrived);
  void FinishFresh();
  void Report(bool copied, LoadReport& report) const;

  LoadPlan& plan_;
  const PlanIndex& index_;
  bool aside_;
  const bool falls_back_;
  std::vector<Match> live_;
  std::vector<std::vector<size_t>> shared_;
  Policy shared_policy_ = Policy::kFail;
  // For each element of live_: the position of the first one with the same stored tensor
  // and the same memory, which is written once for all; and that one's copy mode.
  std::vector<size_t> first_;
  std::vector<CopyMode> copy_modes_;
  std::map<int64_t, torch::Tensor> fresh_;
  std::map<int64_t, int> places_;        // devices of fresh tensors, by root position
  std::map<int64_t, Landing> landings_;  // by root position
  // By device. Declared after landings_: destroying a DeviceLoad waits for copies into
  // their tensors.
  std::map<int, device::DeviceLoad> loads_;
  bool devices_failed_ = false;
};

}  // namespace modelstore::torch_internal
