// TestServer: the real server inside the calling process, for tests of code that
// saves and loads. It needs no port and no folder: everything is kept in memory and
// is gone with the TestServer.
//
//   modelstore::TestServer server;
//   modelstore::Client client = server.NewClient();
//   Train(client, /*epochs=*/3);
//   server.Restart();             // acknowledged saves survive
//   Train(client, /*epochs=*/6);  // resumes after epoch 3
//
// Link modelstore::testing. Requests are handled on the threads of the client, without
// gRPC; what modelstored does in the background (scrub, periodic collection) does not
// run.
#pragma once

#include <memory>

#include "modelstore/client.h"
#include "modelstore/options.h"

namespace modelstore {

// Start(), Stop() and Restart() are called by one thread at a time; clients may be used
// by others meanwhile.
class TestServer {
 public:
  // Running and empty. `options` are those of its clients: a test of an unreachable
  // server wants a short `retry_timeout`.
  explicit TestServer(const ConnectOptions& options = {});
  // Clients may outlive the server; to them it is as after Stop().
  ~TestServer();

  // A client with saves of its own, as in another process.
  Client NewClient() const;

  // Cuts every stream and waits for the other calls in progress. From now on the server
  // cannot be reached: clients retry for `retry_timeout`, then return UNAVAILABLE.
  // Nothing happens if the server is stopped already.
  void Stop();
  // Serves again what was acknowledged. Saves and loads that still retry are resumed.
  // Nothing happens if the server runs.
  void Start();
  // Stop(), then Start().
  void Restart();

 protected:
  // What the server is made of; for the tests of modelstore itself.
  struct Parts;
  Parts& parts() const { return *parts_; }

 private:
  const std::unique_ptr<Parts> parts_;
};

}  // namespace modelstore
