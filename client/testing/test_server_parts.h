// The parts of a TestServer: the service with the in-memory engine, and the connection
// that all of its clients share. Not installed; modelstore's own tests use it to inject
// faults.
#pragma once

#include <memory>

#include "client/testing/in_process_connection.h"
#include "modelstore/testing.h"
#include "server/method_table.h"
#include "storage/checkpoint_store.h"
#include "storage/memory/engine.h"

namespace modelstore {

struct TestServer::Parts {
  // Keeps the data while the server is stopped.
  const std::shared_ptr<storage::MemoryDisk> disk;
  const std::shared_ptr<internal::InProcessConnection> connection;
  // Null while the server is stopped. The service uses the store.
  std::unique_ptr<storage::CheckpointStore> store;
  std::unique_ptr<server::Service> service;
};

}  // namespace modelstore
