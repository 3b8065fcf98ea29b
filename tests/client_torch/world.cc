#include "tests/client_torch/world.h"

#include <utility>

#include "server/method_table.h"
#include "storage/checkpoint_store.h"

namespace modelstore::support {
namespace {

std::unique_ptr<storage::CheckpointStore> OpenStore(
    const std::shared_ptr<storage::MemoryDisk>& disk) {
  auto store = storage::CheckpointStore::Open(storage::StoreOptions{},
                                              storage::OpenMemoryEngine(disk));
  return *std::move(store);  // Dies here, with the status, if it failed.
}

}  // namespace

World::World(ConnectOptions options)
    : disk_(std::make_shared<storage::MemoryDisk>()),
      store_(OpenStore(disk_)),
      service_(server::MakeService(store_.get(), server::ServiceOptions{})),
      connection_(std::make_shared<InProcessConnection>(service_.get(), options)),
      client_(connection_) {}

World::~World() {
  // Saves still under way fail now and touch nothing that is gone.
  connection_->SetService(nullptr);
  (void)client_.Drain(After(std::chrono::seconds(30)));
}

ConnectOptions World::NoRetries() {
  ConnectOptions options = ImpatientOptions();
  options.retry_timeout = std::chrono::milliseconds(0);
  options.streams = 1;
  return options;
}

}  // namespace modelstore::support
