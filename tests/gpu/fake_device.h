// Devices that are none: a DeviceRuntime over this process's own memory, so that the way
// to and from a GPU can be tested where there is none. It is slow on purpose: a copy is
// made only when somebody asks whether an event after it is over, and not at the first
// asking. Memory that is reused too early therefore shows in the result.
//
//   FakeRuntime fake(2);                            // cuda:0 and cuda:1
//   device::ScopedRuntime in_place_of_torch(&fake);
//
// No absl here: tests/gpu/run builds it where only torch is installed.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "client/torch/device/device_runtime.h"

namespace modelstore::support {

// Thread-safe. Outlives its tensors and streams.
class FakeRuntime final : public device::DeviceRuntime {
 public:
  explicit FakeRuntime(int devices);
  ~FakeRuntime() override;

  struct Faults {
    // The n-th from now fails, counted from 1. 0: none.
    int64_t allocation = 0;
    int64_t copy = 0;
    // No event is over until this is false again.
    bool stuck = false;
  };
  void SetFaults(Faults faults);
  // All allocations of the device together, 1 GiB unless set.
  void SetCapacity(int device, int64_t bytes);
  // Work on the device's current stream: done when something that was queued behind it
  // is asked for, or by RunQueued().
  void Queue(int device, std::function<void()> work);
  void RunQueued(int device);

  int64_t live_bytes(int device) const;  // of tensors
  int64_t max_bytes(int device) const;   // the most at any time
  int64_t allocations() const;           // of tensors, ever
  int64_t live_pinned() const;
  int64_t max_pinned() const;
  int64_t copies() const;
  // Devices that any call has named; counting them and asking for memory included.
  std::set<int> touched() const;

  int DeviceCount() override { return static_cast<int>(devices_.size()); }
  int CurrentDevice() override { return 0; }
  int DeviceOf(const torch::Tensor& tensor) override;
  std::optional<Memory> MemoryOf(int device) override;
  torch::Tensor Empty(c10::IntArrayRef shape, torch::ScalarType type,
                      int device) override;
  std::shared_ptr<char> AllocatePinned(size_t bytes, int device) override;
  std::unique_ptr<device::CopyStream> OpenStream(int device) override;
  torch::Tensor RngState(int device) override;
  void SetRngState(int device, const torch::Tensor& state) override;

 private:
  class Stream;
  using Work = std::function<void()>;
  struct Device {
    int64_t capacity = int64_t{1} << 30;
    int64_t live = 0;
    int64_t most = 0;
    std::deque<std::shared_ptr<Work>> queued;
    torch::Tensor rng;
  };

  void Free(int device, char* data, int64_t bytes);
  Device& Touch(int device);

  mutable std::recursive_mutex mutex_;
  std::vector<Device> devices_;        // all under mutex_
  std::map<const char*, int> memory_;  // device by where the tensor's memory begins
  std::set<int> touched_;
  Faults faults_;
  int64_t allocations_ = 0;
  int64_t copies_ = 0;
  int64_t pinned_ = 0;
  int64_t max_pinned_ = 0;
};

}  // namespace modelstore::support
