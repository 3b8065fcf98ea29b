#include "client/torch/placement.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/torch/device/device_runtime.h"
#include "proto/contract/errors.h"

namespace modelstore::torch_internal {
namespace {

// The number in a file; nullopt if the file does not start with one.
std::optional<int64_t> ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// Returns MemAvailable: free memory and memory that the kernel can reclaim.
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

// Returns the memory left in the control group (cgroup v2); nullopt without a limit,
// where `memory.max` contains `max`. memory.current includes the page cache, which the
// kernel can reclaim, so the cache is added back.
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

absl::StatusOr<int> UsableDevice(const std::string& field, const std::string& text) {
  if (text.empty() || text == "cpu") return kCpu;
  absl::string_view rest = text;
  int index = 0;
  const bool plain = text == "cuda";
  if (!plain && !(absl::ConsumePrefix(&rest, "cuda:") && absl::SimpleAtoi(rest, &index) &&
                  index >= 0 && index < 128 && absl::StrCat(index) == rest)) {
    return InvalidField(
        field, absl::StrCat("`", text, "`: `cpu`, `cuda` or `cuda:N` is expected"));
  }
  device::DeviceRuntime& runtime = device::Runtime();
  const int count = runtime.DeviceCount();
  if (count == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(field, " `", text, "`: this process has no usable GPU"));
  }
  if (index >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat(field, " `", text, "`: this process has ", count, " GPU(s)"));
  }
  // Plain `cuda` is the current device, as in PyTorch.
  return plain ? runtime.CurrentDevice() : index;
}

absl::StatusOr<int> Placement::Resolve(const std::string& field, const std::string& text,
                                       LoadReport& report) const {
  absl::StatusOr<int> device = UsableDevice(field, text);
  // Only an unusable device falls back; a malformed name stays an error.
  if (!falls_back_ || !absl::IsFailedPrecondition(device.status())) return device;
  report.fell_back.emplace_back(device.status().message());
  return kCpu;
}

absl::StatusOr<Placement> Placement::Make(const LoadArgs& args,
                                          const LoadOptions& options,
                                          LoadReport& report) {
  Placement placement;
  if (!args.fallback.empty() && args.fallback != "cpu") {
    return InvalidField("fallback", "`cpu`, or nothing, is expected");
  }
  placement.falls_back_ = args.fallback == "cpu";
  absl::StatusOr<int> device = placement.Resolve("device", options.device, report);
  if (!device.ok()) return device.status();
  placement.device_ = *device;
  std::vector<std::string> patterns;
  for (size_t i = 0; i < args.placement.size(); ++i) {
    patterns.push_back(args.placement[i].first);
    device = placement.Resolve(absl::StrCat("placement[", i, "]"),
                               args.placement[i].second, report);
    if (!device.ok()) return device.status();
    placement.rules_.push_back({patterns.back(), *device});
  }
  absl::StatusOr<KeyPatterns> compiled = KeyPatterns::Make("placement", patterns);
  if (!compiled.ok()) return compiled.status();
  placement.patterns_ = *std::move(compiled);
  return placement;
}

int Placement::DeviceFor(const std::string& section, const std::string& key) {
  // A pattern may match `model:key` or the plain key; the earlier rule of both applies.
  std::optional<size_t> rule = patterns_.First(absl::StrCat(section, ":", key));
  if (section == "model") {
    const std::optional<size_t> by_key = patterns_.First(key);
    if (by_key && (!rule || *by_key < *rule)) rule = by_key;
  }
  if (!rule) return device_;
  rules_[*rule].used = true;
  return rules_[*rule].device;
}

std::vector<std::string> Placement::Unused() const {
  std::vector<std::string> unused;
  for (const Rule& rule : rules_) {
    if (!rule.used) unused.push_back(rule.pattern);
  }
  return unused;
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

absl::Status CheckDeviceMemory(int device, int64_t bytes) {
  const auto memory = device::Runtime().MemoryOf(device);
  if (!memory || bytes <= memory->free) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the load needs ", bytes, " bytes of memory on cuda:", device, ", ",
                   memory->free, " of ", memory->total, " are free"));
}

}  // namespace modelstore::torch_internal
