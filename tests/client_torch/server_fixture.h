// A server in this process and a client of it.
//
//   ServerFixture fixture;
//   SaveCheckpoint(fixture.client(), "models/m", {.module = net.get()});
#pragma once

#include <chrono>

#include "modelstore/client.h"
#include "tests/client/test_store.h"

namespace modelstore::support {

class ServerFixture : public TestStore {
 public:
  explicit ServerFixture(const ConnectOptions& options = ImpatientOptions())
      : TestStore(options), client_(NewClient()) {}
  ~ServerFixture() {
    // Saves still under way fail now and touch nothing that is gone.
    Stop();
    (void)client_.Drain(After(std::chrono::seconds(30)));
  }

  Client& client() { return client_; }

  // Gives up at the first failure instead of trying again.
  static ConnectOptions NoRetries() {
    ConnectOptions options = ImpatientOptions();
    options.retry_timeout = std::chrono::milliseconds(0);
    options.streams = 1;
    return options;
  }

 private:
  Client client_;
};

}  // namespace modelstore::support
