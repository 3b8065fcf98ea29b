// Checkpoints for tests. Their content is generated from a seed, so that saved bytes need
// not be kept for the comparison.
//
//   TensorSet saved({.seed = 7, .tensors = 20, .bytes = 3 << 20});
//   auto info = Save(client, "models/m", saved, options);
//   EXPECT_EQ(Verify(client, info->name, saved), absl::OkStatus());
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/client.h"
#include "tests/support/random_bytes.h"

namespace modelstore::support {

struct TensorSetParams {
  uint64_t seed = 0;
  int tensors = 8;
  // Approximate total size: each tensor has a whole number of elements.
  int64_t bytes = 1 << 20;
};

// Named tensors with their bytes. Cheap to copy: copies share the bytes.
class TensorSet {
 public:
  TensorSet() = default;
  // Tensors of various sizes and dtypes, including a 0-dim and an empty one.
  explicit TensorSet(const TensorSetParams& params);

  struct Entry {
    TensorInfo info;
    std::shared_ptr<const std::string> bytes;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  int64_t total_bytes() const;

  void Add(TensorInfo info, std::string bytes);
  // Returns a copy in which the bytes of tensor `index` are generated from `seed`.
  TensorSet WithChanged(size_t index, uint64_t seed) const;

  // For the client library; the views keep the bytes alive.
  SaveContent Content() const;

 private:
  std::vector<Entry> entries_;
};

// Connects with short timeouts, so that failures are reported soon. `retry` is the retry
// timeout for an unreachable server.
absl::StatusOr<Client> ConnectTo(
    const std::string& address,
    std::chrono::milliseconds retry = std::chrono::milliseconds(20'000),
    std::chrono::milliseconds stall = std::chrono::milliseconds(10'000));

absl::StatusOr<CheckpointInfo> Save(Client& client, const std::string& parent,
                                    const TensorSet& tensors, SaveOptions options = {});

// `section:key` to bytes.
using LoadedTensors = std::map<std::string, std::string>;
absl::StatusOr<LoadedTensors> Load(Client& client, const std::string& name,
                                   LoadOptions options = {});

// Loads a checkpoint and compares it bit for bit. DATA_LOSS naming the tensor if anything
// differs, else the status of the load.
absl::Status Verify(Client& client, const std::string& name, const TensorSet& expected);
absl::Status Compare(const LoadedTensors& loaded, const TensorSet& expected);

}  // namespace modelstore::support
