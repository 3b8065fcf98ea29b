#include <cstdio>
#include <cstdlib>
#include <utility>

#include "client/testing/test_server_parts.h"

namespace modelstore {
namespace {

std::unique_ptr<storage::CheckpointStore> OpenStore(
    const std::shared_ptr<storage::MemoryDisk>& disk) {
  storage::StoreOptions options;
  options.reserve_bytes = 0;
  auto store = storage::CheckpointStore::Open(options, storage::OpenMemoryEngine(disk));
  if (!store.ok()) {
    // Reachable only through a fault that a test injected into the disk.
    std::fprintf(stderr, "TestServer: %s\n", store.status().ToString().c_str());
    std::abort();
  }
  return *std::move(store);
}

}  // namespace

TestServer::TestServer(const ConnectOptions& options)
    : parts_(new Parts{
          .disk = std::make_shared<storage::MemoryDisk>(),
          .connection = std::make_shared<internal::InProcessConnection>(options)}) {
  Start();
}

TestServer::~TestServer() { Stop(); }

Client TestServer::NewClient() const { return Client(parts_->connection); }

// Sessions use the service, and the service uses the store: destroyed in this order.
void TestServer::Stop() {
  parts_->connection->SetService(nullptr);
  parts_->service.reset();
  parts_->store.reset();
}

void TestServer::Start() {
  if (parts_->service != nullptr) return;
  parts_->store = OpenStore(parts_->disk);
  parts_->service = server::MakeService(parts_->store.get(), {});
  parts_->connection->SetService(parts_->service.get());
}

void TestServer::Restart() {
  Stop();
  Start();
}

}  // namespace modelstore
