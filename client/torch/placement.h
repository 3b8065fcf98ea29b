// Where loaded tensors go, and whether they fit there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/torch/key_rules.h"
#include "modelstore/torch.h"

namespace modelstore::torch_internal {

// A device by its number; the CPU.
inline constexpr int kCpu = -1;

// `cpu`, `cuda`, `cuda:N`. INVALID_ARGUMENT naming `field` for other text;
// FAILED_PRECONDITION naming the device when this process cannot use it.
absl::StatusOr<int> UsableDevice(const std::string& field, const std::string& text);

// What the caller says about where fresh tensors go.
class Placement {
 public:
  // Notes in the report each device that gives way to the CPU.
  static absl::StatusOr<Placement> Make(const LoadArgs& args, const LoadOptions& options,
                                        LoadReport& report);

  // By the first rule that matches. `key` is the tensor's name here.
  int DeviceFor(const std::string& section, const std::string& key);
  // The patterns that have decided for no tensor so far.
  std::vector<std::string> Unused() const;
  // Whether the CPU takes what does not fit on its device.
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
  std::vector<Rule> rules_;  // as patterns_
};

// RESOURCE_EXHAUSTED, naming both figures, when `bytes` are more than the memory
// that the machine and the control group have left.
absl::Status CheckHostMemory(int64_t bytes);

// The same for a device. OK where the device does not tell what it has: then the
// allocation will.
absl::Status CheckDeviceMemory(int device, int64_t bytes);

}  // namespace modelstore::torch_internal
