// Connection: the seam under Client. The real one speaks gRPC; tests put their
// own in its place. Carries serialized protobuf messages and, beside them,
// payloads that are never copied.
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

// A message as it arrives: pieces of memory, in order, kept by `owner`.
struct ReceivedMessage {
  std::vector<std::string_view> fragments;
  std::shared_ptr<void> owner;
};

// A payload to send in place. The connection holds `owner` until it needs the
// bytes no more.
struct Payload {
  std::string_view bytes;
  std::shared_ptr<const void> owner;
};

// One RPC stream. Used by one thread at a time, except Cancel(). Every call
// waits at most until `deadline` and then returns DEADLINE_EXCEEDED.
class Stream {
 public:
  virtual ~Stream() = default;
  // Sends one message: `head`, then the payloads. Returns when the transport has
  // taken it, not when it has arrived. Any error: call Finish() for the reason.
  virtual absl::Status Write(std::string head, std::vector<Payload> payloads,
                             Deadline deadline) = 0;
  virtual absl::Status WritesDone(Deadline deadline) = 0;
  // OUT_OF_RANGE at the end of the stream. After DEADLINE_EXCEEDED the next call
  // goes on waiting for the same message.
  virtual absl::StatusOr<ReceivedMessage> Read(Deadline deadline) = 0;
  // The status that the server ended the RPC with.
  virtual absl::Status Finish(Deadline deadline) = 0;
  virtual void Cancel() = 0;
};

// Thread-safe.
class Connection {
 public:
  virtual ~Connection() = default;
  // `method` is the full name, `/modelstore.v1.ModelStore/GetModel`. Returns the
  // serialized response.
  virtual absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                           Deadline deadline) = 0;
  // Opens a client- or server-streaming RPC. Streams with different `lane`
  // travel on different connections.
  virtual absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                                       Deadline deadline) = 0;
  virtual const ConnectOptions& options() const = 0;
};

}  // namespace modelstore
