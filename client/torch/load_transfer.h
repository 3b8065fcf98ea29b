// Puts the bytes of a plan into tensors: straight where that is possible, by way
// of new memory and copy_ elsewhere.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "client/torch/load_module.h"
#include "modelstore/client.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

class Transfer {
 public:
  // All outlive this. `aside`: nothing is written into a module's tensor until
  // everything has arrived.
  Transfer(LoadPlan& plan, const PlanIndex& index, bool aside)
      : plan_(plan), index_(index), aside_(aside) {}

  // Live tensors of a module, in the order in which PyTorch would copy.
  void AddLive(std::vector<Match> matches) { live_ = std::move(matches); }
  // A tensor of its own for plan position `index`.
  void AddFresh(int64_t index) { fresh_.insert({index, torch::Tensor()}); }

  // Allocates, fetches and copies. Moves the version counter of every live
  // tensor that was written, or may have been, however it ends. On failure the
  // report tells what became of each live tensor.
  absl::Status Run(Deadline deadline, LoadReport& report);

  // After Run(): the tensor of AddFresh(index), on the CPU, as stored.
  torch::Tensor Fresh(int64_t index) const { return fresh_.at(index); }

 private:
  enum class Way : uint8_t {
    kDirect,  // bytes land in it
    kCopied,  // copy_ once all has arrived
  };
  struct Landing {
    torch::Tensor tensor;
    bool live = false;  // belongs to the module
  };

  void ChooseWays();
  Way WayOf(size_t i) const { return ways_[first_[i]]; }
  absl::Status Allocate();
  absl::Status Bind();
  void CopyAndBump(bool arrived);
  void FinishFresh();
  void Report(bool copied, LoadReport& report) const;

  LoadPlan& plan_;
  const PlanIndex& index_;
  const bool aside_;
  std::vector<Match> live_;
  // Of live_: the first match with the same stored tensor and the very same
  // memory, which is written once; and how that one is.
  std::vector<size_t> first_;
  std::vector<Way> ways_;
  std::map<int64_t, torch::Tensor> fresh_;
  std::map<int64_t, Landing> landings_;  // by root position
};

}  // namespace modelstore::torch_internal
