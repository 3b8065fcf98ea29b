#include "client/torch/device.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace modelstore::torch_internal {
namespace {

std::optional<int64_t> ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// MemAvailable: free memory and what the kernel can take back.
std::optional<int64_t> MachineAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  int64_t kib = 0;
  while (file >> name >> kib) {
    if (name == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return std::nullopt;
}

// `memory.max` reads `max` where there is no limit. The group's page cache counts
// as used here although it can be taken back, so its inactive part is added.
std::optional<int64_t> GroupAvailable() {
  const auto limit = ReadNumber("/sys/fs/cgroup/memory.max");
  const auto used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (!limit || !used) return std::nullopt;
  int64_t cache = 0;
  std::ifstream stat("/sys/fs/cgroup/memory.stat");
  std::string name;
  int64_t bytes = 0;
  while (stat >> name >> bytes) {
    if (name == "inactive_file" || name == "active_file") cache += bytes;
  }
  return *limit - *used + cache;
}

}  // namespace

absl::StatusOr<torch::Device> UsableDevice(const std::string& text) {
  if (text.empty() || text == "cpu") return torch::Device(torch::kCPU);
  absl::string_view rest = text;
  int index = 0;
  const bool plain = text == "cuda";
  if (!plain && !(absl::ConsumePrefix(&rest, "cuda:") && absl::SimpleAtoi(rest, &index) &&
                  index >= 0 && index < 128 && absl::StrCat(index) == rest)) {
    return absl::InvalidArgumentError(
        absl::StrCat("device `", text, "`: `cpu`, `cuda` or `cuda:N` is expected"));
  }
  const int count = static_cast<int>(torch::cuda::device_count());
  if (count == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("device `", text, "`: this process has no usable GPU"));
  }
  if (index >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("device `", text, "`: this process has ", count, " GPU(s)"));
  }
  // Plain `cuda` is the current device, as in PyTorch.
  return plain ? torch::Device(torch::kCUDA)
               : torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(index));
}

absl::Status CheckHostMemory(int64_t bytes) {
  int64_t available = std::numeric_limits<int64_t>::max();
  if (const auto machine = MachineAvailable()) available = std::min(available, *machine);
  if (const auto group = GroupAvailable()) available = std::min(available, *group);
  if (bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("the load needs ", bytes,
                                                   " bytes of memory on the cpu, ",
                                                   available, " are available"));
}

}  // namespace modelstore::torch_internal
