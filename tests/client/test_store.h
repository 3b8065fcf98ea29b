// A server without a network and without a disk, and a client of it.
#pragma once

#include <memory>

#include "modelstore/client.h"
#include "server/method_table.h"
#include "storage/checkpoint_store.h"
#include "storage/memory/engine.h"
#include "tests/support/in_process_connection.h"

namespace modelstore::support {

class TestStore {
 public:
  explicit TestStore(ConnectOptions options = ImpatientOptions())
      : disk_(std::make_shared<storage::MemoryDisk>()),
        connection_(std::make_shared<InProcessConnection>(nullptr, options)) {
    Start();
  }
  ~TestStore() { Stop(); }

  // Everything in memory of the server is lost, and what its disk holds is not.
  void Restart() {
    Stop();
    Start();
  }
  void Stop() {
    connection_->SetService(nullptr);
    service_.reset();
    store_.reset();
  }
  void Start() {
    storage::StoreOptions options;
    options.reserve_bytes = 0;
    auto store =
        storage::CheckpointStore::Open(options, storage::OpenMemoryEngine(disk_));
    if (!store.ok()) {
      std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
      std::abort();
    }
    store_ = *std::move(store);
    service_ = server::MakeService(store_.get(), {});
    connection_->SetService(service_.get());
  }

  InProcessConnection& connection() { return *connection_; }
  storage::MemoryDisk& disk() { return *disk_; }
  storage::CheckpointStore& store() { return *store_; }
  Client NewClient() { return Client(connection_); }

 private:
  const std::shared_ptr<storage::MemoryDisk> disk_;
  const std::shared_ptr<InProcessConnection> connection_;
  std::unique_ptr<storage::CheckpointStore> store_;
  std::unique_ptr<server::Service> service_;
};

inline Deadline Soon() { return After(std::chrono::seconds(60)); }

}  // namespace modelstore::support
