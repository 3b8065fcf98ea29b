// A TestServer whose parts a test can reach, to inject faults and to look inside.
#pragma once

#include <chrono>

#include "client/testing/test_server_parts.h"
#include "modelstore/client.h"
#include "modelstore/testing.h"

namespace modelstore::support {

// Short waits, so that a test of retries takes no time.
inline ConnectOptions ImpatientOptions() {
  ConnectOptions options;
  options.stall_timeout = std::chrono::milliseconds(5'000);
  options.retry_timeout = std::chrono::milliseconds(10'000);
  return options;
}

class TestStore : public TestServer {
 public:
  explicit TestStore(const ConnectOptions& options = ImpatientOptions())
      : TestServer(options) {}

  internal::InProcessConnection& connection() { return *parts().connection; }
  storage::MemoryDisk& disk() { return *parts().disk; }
  storage::CheckpointStore& store() { return *parts().store; }
};

inline Deadline TestDeadline() { return After(std::chrono::seconds(60)); }

}  // namespace modelstore::support
