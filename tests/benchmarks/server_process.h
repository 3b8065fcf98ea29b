// A modelstored of the benchmark's own: real binary, own process, own folder,
// loopback.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/v1/model_store.grpc.pb.h"
#include "tests/benchmarks/process.h"

namespace modelstore::bench {

class ServerProcess {
 public:
  // `folder` is made and emptied. Deleted checkpoints give their space back after
  // a few seconds instead of a minute, so that a run needs little disk. `nice`: as of
  // nice(1).
  static absl::StatusOr<ServerProcess> Start(const std::string& binary,
                                             const std::string& folder, int nice = 0);
  ServerProcess(ServerProcess&&) = default;
  ~ServerProcess();

  const std::string& address() const { return address_; }
  pid_t pid() const { return process_.pid(); }
  // Deletes a model with all it holds, and waits until its bytes are gone.
  absl::Status DeleteModel(const std::string& name);
  // Waits until the bytes of all that was deleted are gone.
  absl::Status CollectDeleted();
  absl::StatusOr<v1::Stats> Stats();

 private:
  ServerProcess(Process process, std::string address, std::string folder);

  Process process_;
  std::string address_;
  std::string folder_;
  std::unique_ptr<v1::ModelStore::Stub> admin_;
};

}  // namespace modelstore::bench
