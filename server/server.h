// The server: serves a Service over gRPC, with a store behind it.
//
//   auto server = Server::Start(config);
//   std::cout << (*server)->port();
//   ...
//   (*server)->Shutdown(absl::Seconds(30));
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config.h"
#include "server/method_table.h"

namespace modelstore::server {

// The parts that a server is built on, for tests, which replace them. If the service is
// null, it is made over the store. The store may be null only if a service is given;
// there is then no maintenance and no scrub.
struct ServerParts {
  std::unique_ptr<storage::CheckpointStore> store;
  std::unique_ptr<Service> service;
};

// Thread-safe.
class Server {
 public:
  // Opens the store at config.data_dir and serves it. Returns once connections are
  // accepted. Errors: INVALID_ARGUMENT for the configuration, UNAVAILABLE if the address
  // cannot be bound, those of opening the store.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config);
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config,
                                                       ServerParts parts);
  // Calls Shutdown(absl::ZeroDuration()). If that fails, the server's memory is leaked.
  ~Server();

  int port() const;
  // Number of open streams, without those of WatchModel.
  int streams() const;
  // Number of open WatchModel streams. They hold no thread while they wait.
  int watchers() const;
  // The address as bound: `host:port` or `unix:/path`.
  std::string address() const;

  // Refuses new RPCs, waits up to `patience` for running ones, cancels the rest, and
  // closes the store. Later calls wait for the first and return its result.
  // DEADLINE_EXCEEDED if a cancelled RPC does not release its storage thread within 15 s:
  // the server cannot be destroyed then, and the process should exit.
  absl::Status Shutdown(absl::Duration patience);

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  static absl::StatusOr<std::unique_ptr<Server>> StartState(std::unique_ptr<State> state,
                                                            ServerParts parts);
  std::unique_ptr<State> state_;
};

}  // namespace modelstore::server
