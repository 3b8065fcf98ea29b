// TestServer: the real server inside the calling process, for tests of code that
// saves and loads. Needs no port and no directory: all data is in memory and is lost when
// the TestServer is destroyed.
//
//   modelstore::TestServer server;
//   modelstore::Client client = server.NewClient();
//   Train(client, /*epochs=*/3);
//   server.Restart();             // acknowledged saves survive
//   Train(client, /*epochs=*/6);  // resumes after epoch 3
//
// Link modelstore::testing. Requests run on the client's threads, without gRPC.
// Background work of modelstored (scrub, periodic garbage collection) does not run.
#pragma once

#include <memory>

#include "modelstore/client.h"
#include "modelstore/options.h"

namespace modelstore {

// Thread safety: one thread at a time calls Start(), Stop() and Restart(); other threads
// may use clients at the same time.
class TestServer {
 public:
  // Starts an empty server. `options` apply to its clients; set a short `retry_timeout`
  // to test an unreachable server.
  explicit TestServer(const ConnectOptions& options = {});
  // Stops the server. Clients may outlive it; for them it is unreachable, as after
  // Stop().
  ~TestServer();

  // Returns a client with its own queue of saves, like a client in another process.
  Client NewClient() const;

  // Breaks every stream, waits for the unary calls in progress, and makes the server
  // unreachable: clients retry for `retry_timeout`, then return UNAVAILABLE. No effect if
  // the server is stopped.
  void Stop();
  // Starts the server with all acknowledged data. Saves and loads that still retry
  // resume. No effect if the server runs.
  void Start();
  // Stop(), then Start().
  void Restart();

 protected:
  // Internals of the server, for modelstore's own tests.
  struct Parts;
  Parts& parts() const { return *parts_; }

 private:
  const std::unique_ptr<Parts> parts_;
};

}  // namespace modelstore
