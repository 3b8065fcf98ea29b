// torch.save and torch.load in a Python process that is already running.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/benchmarks/process.h"

namespace modelstore::bench {

class TorchPeer {
 public:
  // Starts torch_peer.py and builds a state dict of float32 tensors with so many
  // elements each.
  static absl::StatusOr<TorchPeer> Start(const std::string& script,
                                         const std::vector<int64_t>& elements,
                                         const std::string& log);
  // Seconds of `command`, as torch_peer.py describes them.
  absl::StatusOr<double> Run(const std::string& command, const std::string& path);
  const std::string& versions() const { return versions_; }

 private:
  explicit TorchPeer(Process process) : process_(std::move(process)) {}
  absl::StatusOr<std::string> Ask(const std::string& line);

  Process process_;
  std::string versions_;
};

}  // namespace modelstore::bench
