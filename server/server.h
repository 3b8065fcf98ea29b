// The server: gRPC over a Service over a store.
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

// What a server is built on. The service may be left out: it is then made over
// the store. The store may be left out where a service is given.
struct ServerParts {
  std::unique_ptr<storage::CheckpointStore> store;
  std::unique_ptr<Service> service;
};

// Thread-safe.
class Server {
 public:
  // Opens the store of config.data_dir and serves it.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config);
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config,
                                                       ServerParts parts);
  // Shuts down as by Shutdown() without patience.
  ~Server();

  int port() const;
  // Streams that are open.
  int streams() const;
  // Of WatchModel, which streams() does not count: they hold no thread while they wait.
  int watchers() const;
  // `host:port` as bound.
  std::string address() const;

  // Refuses new RPCs, waits for running ones as long as `patience`, cancels the
  // rest, closes the store. Once; later calls return what the first did.
  // DEADLINE_EXCEEDED if an RPC is still held by its storage thread a while after
  // it was cancelled: the process can then only be ended.
  absl::Status Shutdown(absl::Duration patience);

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  static absl::StatusOr<std::unique_ptr<Server>> StartState(std::unique_ptr<State> state,
                                                            ServerParts parts);
  std::unique_ptr<State> state_;
};

}  // namespace modelstore::server
