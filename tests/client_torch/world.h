// A store in memory, the service over it and a client, all in this process.
//
//   World world;
//   SaveCheckpoint(world.client(), "models/m", {.module = net.get()});
#pragma once

#include <memory>

#include "modelstore/client.h"
#include "storage/memory/engine.h"
#include "tests/support/in_process_connection.h"

namespace modelstore::support {

class World {
 public:
  explicit World(ConnectOptions options = ImpatientOptions());
  ~World();

  Client& client() { return client_; }
  InProcessConnection& connection() { return *connection_; }
  storage::MemoryDisk& disk() { return *disk_; }

  // Gives up at the first failure instead of trying again.
  static ConnectOptions NoRetries();

 private:
  std::shared_ptr<storage::MemoryDisk> disk_;
  std::unique_ptr<storage::CheckpointStore> store_;
  std::unique_ptr<server::Service> service_;
  std::shared_ptr<InProcessConnection> connection_;
  Client client_;
};

}  // namespace modelstore::support
