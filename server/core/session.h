// The streaming RPCs as objects that take or give messages, independent of gRPC. The
// driver (a reactor, or the in-process connection of the tests) calls them on threads of
// the storage pool, because they may block on the disk.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "storage/api/pinned_bytes.h"

namespace modelstore::server {

// A client-streaming RPC: SaveCheckpoint, UploadChunks. Used by one thread at a time. If
// it is destroyed before OnEnd(), the stream was interrupted.
class InboundSession {
 public:
  virtual ~InboundSession() = default;
  // Takes one complete message, which is the concatenation of `fragments`. The views are
  // valid during the call only. An error becomes the status of the RPC, and no other
  // method is called afterwards.
  virtual absl::Status OnMessage(absl::Span<const absl::string_view> fragments) = 0;
  // Called once, when the client has half-closed. Returns the serialized response.
  virtual absl::StatusOr<std::string> OnEnd() = 0;
};

// A message to send: the concatenation of `head` and the payloads, which are sent in
// place and released once gRPC no longer needs them.
struct OutboundMessage {
  std::string head;
  std::vector<storage::PinnedBytes> payloads;
  // If set, there is nothing to send yet: head and payloads are empty, and Next() must be
  // called again after this time. It lets a session wait, or work in short steps, without
  // holding a thread.
  std::optional<absl::Duration> again_after = std::nullopt;

  static OutboundMessage AgainAfter(absl::Duration time) {
    OutboundMessage message;
    message.again_after = time;
    return message;
  }
};

// Bytes sent before the client has consumed anything; bounds what a stalled reader can
// pin. It exceeds HTTP/2's initial window (64 KiB), so that gRPC completes the write only
// after the client has extended the window.
constexpr int64_t kInitialSendBytes = int64_t{128} << 10;

// A server-streaming RPC: LoadCheckpoint, VerifyCheckpoint, WatchModel. Used by one
// thread at a time, except where noted.
class OutboundSession {
 public:
  virtual ~OutboundSession() = default;
  // Returns the next message, or nullopt at the end of the stream. An error becomes the
  // status of the RPC.
  virtual absl::StatusOr<std::optional<OutboundMessage>> Next() = 0;
  // Makes a running or later Next() return soon. Callable from any thread; never blocks.
  virtual void Cancel() {}

  // Lets a session wait for an event without a thread. The driver calls it before each
  // Next(), from any thread, as it never blocks. nullopt: call Next() now. Otherwise the
  // session calls `ready` once when the event occurs, on the thread that caused it, so
  // `ready` must return quickly. If the returned time (steady clock) comes first, the
  // driver calls CancelWait() and then Next().
  virtual std::optional<absl::Time> Wait(std::function<void()> ready) {
    return std::nullopt;
  }
  // Ends a wait. True if the session was waiting: `ready` will not be called. False if
  // `ready` was or is being called. Never blocks.
  virtual bool CancelWait() { return false; }
};

}  // namespace modelstore::server
