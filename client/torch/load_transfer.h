// Puts the bytes of a plan into tensors: straight where that is possible (on a device
// through page-locked memory), by way of new memory and copy_ elsewhere.
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

class Transfer {
 public:
  // All outlive this. `aside`: nothing is written into a module's tensor until
  // everything has arrived. `falls_back`: the CPU takes what a device has no room for.
  Transfer(LoadPlan& plan, const PlanIndex& index, bool aside, bool falls_back)
      : plan_(plan), index_(index), aside_(aside), falls_back_(falls_back) {}

  // Live tensors of a module, in the order in which PyTorch would copy.
  void AddLive(std::vector<Match> matches) { live_ = std::move(matches); }
  // A tensor of its own for plan position `index`, on `device`. Of tied ones the first
  // decides.
  void AddFresh(int64_t index, int device) {
    fresh_.insert({index, torch::Tensor()});
    places_.try_emplace(index_.Root(index), device);
  }

  // Groups of live tensors that share memory. All tensors are loaded aside, and the
  // groups are compared before anything is written. `policy`: kFail refuses, kReport
  // reports values that would not last.
  void AddShared(std::vector<std::vector<size_t>> groups, Policy policy);

  // Allocates, fetches and copies. Moves the version counter of every live
  // tensor that was written, or may have been, however it ends. On failure the
  // report tells what became of each live tensor.
  absl::Status Run(Deadline deadline, LoadReport& report);

  // After Run(): the tensor of AddFresh(index), as stored.
  torch::Tensor Fresh(int64_t index) const { return fresh_.at(index); }

 private:
  enum class CopyMode : uint8_t {
    kDirect,  // bytes land in it
    kCopied,  // copy_ once all has arrived
  };
  struct Landing {
    torch::Tensor tensor;
    bool live = false;  // belongs to the module
  };

  using Bytes = std::map<int64_t, int64_t>;  // by root

  void ChooseCopyModes();
  CopyMode CopyModeOf(size_t i) const { return copy_modes_[first_[i]]; }
  int PlaceOf(int64_t root) const;
  absl::StatusOr<Bytes> BytesToAllocate() const;
  // One pass per device, the CPU last: it may have to take what others cannot.
  absl::Status Allocate(LoadReport& report);
  absl::Status AllocateOn(int device, const Bytes& need);
  absl::Status Bind();
  absl::Status FinishDevices(Deadline deadline);
  // The memory that CheckShared() takes.
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
  // Of live_: the first match with the same stored tensor and the very same
  // memory, which is written once; and how that one is.
  std::vector<size_t> first_;
  std::vector<CopyMode> copy_modes_;
  std::map<int64_t, torch::Tensor> fresh_;
  std::map<int64_t, int> places_;        // of fresh tensors, by root position
  std::map<int64_t, Landing> landings_;  // by root position
  // By device. After landings_, so that copies end before their tensors do.
  std::map<int, device::DeviceLoad> loads_;
  bool devices_failed_ = false;
};

}  // namespace modelstore::torch_internal
