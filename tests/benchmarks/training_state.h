// The state that the benchmark saves and loads: about 150 float32 parameters of a
// torch module, 4 KiB to 100 MB each. Keeps torch out of the other files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/client.h"

namespace modelstore::bench {

// Elements per tensor: 150 sizes, most of them small and most bytes in few, as
// in real models; together `total_bytes`.
std::vector<int64_t> StateShape(int64_t total_bytes);

// Every save is of all parameters; every call but SaveAsync waits until it is
// done.
class TrainingState {
 public:
  explicit TrainingState(const std::vector<int64_t>& elements);
  ~TrainingState();

  int64_t total_bytes() const;
  // Changes every element of the tensor whose size is nearest to `bytes`;
  // returns its size.
  int64_t ChangeOne(int64_t bytes);
  void ChangeAll();

  absl::StatusOr<CheckpointInfo> Save(Client& client, const std::string& parent);
  SaveHandle SaveAsync(Client& client, const std::string& parent);
  // Into the live module.
  absl::Status Load(Client& client, const std::string& name);
  // Into fresh tensors, freed afterwards; `seconds` without the freeing.
  absl::StatusOr<double> LoadFresh(Client& client, const std::string& name);
  // Clears the module, loads it, and compares every element with what it was.
  absl::Status VerifyLoad(Client& client, const std::string& name);

  // Computes, as a step of training does: multiplies two matrices so often.
  void Multiply(int64_t times);
  // How many threads torch computes with.
  static int Threads();
  static void SetThreads(int threads);
  static std::string LibTorchVersion();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace modelstore::bench
