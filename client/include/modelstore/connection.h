// Connection: the transport interface below Client. The default implementation uses
// gRPC; tests replace it. Transfers serialized protobuf messages and, beside them,
// payloads that are not copied.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/options.h"

namespace modelstore {

// A received message: its bytes are the concatenation of `fragments`, which are valid
// while `owner` is held.
struct ReceivedMessage {
  std::vector<std::string_view> fragments;
  std::shared_ptr<void> owner;
};

// Bytes to send without a copy. The connection holds `owner` until they have been sent;
// the bytes must not change before.
struct Payload {
  std::string_view bytes;
  std::shared_ptr<const void> owner;
};

// One RPC stream. Used by one thread at a time, except Cancel(), which any thread may
// call. Every call waits until `deadline` at most and then returns DEADLINE_EXCEEDED.
class Stream {
 public:
  virtual ~Stream() = default;
  // Sends one message: `head` followed by the payloads. Returns when the transport has
  // accepted it, not when it has arrived. After an error, Finish() returns the reason.
  virtual absl::Status Write(std::string head, std::vector<Payload> payloads,
                             Deadline deadline) = 0;
  // Half-closes the stream: no Write() follows.
  virtual absl::Status WritesDone(Deadline deadline) = 0;
  // Returns the next message. OUT_OF_RANGE at the end of the stream. After
  // DEADLINE_EXCEEDED no message is lost: call again.
  virtual absl::StatusOr<ReceivedMessage> Read(Deadline deadline) = 0;
  // Returns the final status of the RPC.
  virtual absl::Status Finish(Deadline deadline) = 0;
  // Cancels the RPC; calls that wait return soon.
  virtual void Cancel() = 0;
};

// A connection to one server. Thread-safe.
class Connection {
 public:
  virtual ~Connection() = default;
  // Makes a unary call. `method` is the full name, such as
  // `/modelstore.v1.ModelStore/GetModel`. Returns the serialized response.
  virtual absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                           Deadline deadline) = 0;
  // Opens a client- or server-streaming RPC. Streams with different `lane` use different
  // connections.
  virtual absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                                       Deadline deadline) = 0;
  // The options that the connection was created with.
  virtual const ConnectOptions& options() const = 0;
};

}  // namespace modelstore
