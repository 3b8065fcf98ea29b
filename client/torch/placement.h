// Chooses the devices of loaded tensors, and checks that they have enough memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/torch/key_rules.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// Devices are numbered as CUDA does; this number means the CPU.
inline constexpr int kCpu = -1;

// Parses `cpu` (also if empty), `cuda` or `cuda:N`. INVALID_ARGUMENT, with `field`, for
// other text; FAILED_PRECONDITION, with the device, if this process cannot use it.
absl::StatusOr<int> UsableDevice(const std::string& field, const std::string& text);

// The devices of fresh tensors: options.device and LoadArgs::placement.
class Placement {
 public:
  // Reports each device that is replaced by the CPU, if args.fallback allows it.
  static absl::StatusOr<Placement> Make(const LoadArgs& args, const LoadOptions& options,
                                        LoadReport& report);

  // Returns the device of the first rule that matches. `key` is the key after renaming.
  // Marks the rule as used.
  int DeviceFor(const std::string& section, const std::string& key);
  // Returns the patterns of rules that placed no tensor so far.
  std::vector<std::string> Unused() const;
  // Whether tensors that do not fit on their device go to the CPU.
  bool falls_back() const { return falls_back_; }

 private:
  absl::StatusOr<int> Resolve(const std::string& field, const std::string& text,
                              LoadReport& report) const;

  bool falls_back_ = false;
  int device_ = kCpu;
  KeyPatterns patterns_;
  struct Rule {
    std::string pattern;
    int device = kCpu;
    bool used = false;
  };
  std::vector<Rule> rules_;  // parallel to patterns_
};

// RESOURCE_EXHAUSTED, with both figures, if `bytes` exceed the memory that is available
// to the machine or to the control group. A check before an allocation, not a
// reservation.
absl::Status CheckHostMemory(int64_t bytes);

// The same for a device. OK if its free memory is unknown; then the allocation itself
// fails.
absl::Status CheckDeviceMemory(int device, int64_t bytes);

}  // namespace modelstore::torch_internal
