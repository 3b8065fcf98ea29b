// The streaming RPCs as objects that take or give messages. Whoever drives them (the
// reactors, or the in-process connection of the tests) does so from the threads of the
// storage pool: everything here may block on the disk.
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

// A client-streaming RPC: SaveCheckpoint, UploadChunks. One thread at a time.
// Destroyed before OnEnd(), it is a stream that was cut.
class InboundSession {
 public:
  virtual ~InboundSession() = default;
  // Takes one message, whole; the views live for this call alone. An error ends
  // the RPC with it.
  virtual absl::Status OnMessage(absl::Span<const absl::string_view> fragments) = 0;
  // The client has half-closed: returns the serialized response.
  virtual absl::StatusOr<std::string> OnEnd() = 0;
};

// A message to send: `head`, then the payloads, in place.
struct OutboundMessage {
  std::string head;
  std::vector<storage::PinnedBytes> payloads;
  // Set: there is nothing to send yet, head and payloads are empty, and Next() is
  // to be called again after this time. So a session waits, and works in steps,
  // without holding a thread.
  std::optional<absl::Duration> again_after = std::nullopt;

  static OutboundMessage AgainAfter(absl::Duration time) {
    OutboundMessage message;
    message.again_after = time;
    return message;
  }
};

// What a stream is sent before its client has shown that it reads: more than
// HTTP/2's first window, so that the rest of it waits for the client, and little
// enough to be held for each of many clients that never read.
constexpr int64_t kInitialSendBytes = int64_t{128} << 10;

// A server-streaming RPC: LoadCheckpoint, VerifyCheckpoint, WatchModel. One thread
// at a time.
class OutboundSession {
 public:
  virtual ~OutboundSession() = default;
  // The next message; absent at the end of the stream. Called again after
  // OutboundMessage::again_after.
  virtual absl::StatusOr<std::optional<OutboundMessage>> Next() = 0;
  // Makes a running or later Next() end soon. From any thread; never blocks.
  virtual void Cancel() {}

  // A session that waits for something to happen holds no thread meanwhile. To be
  // asked before Next(), by any thread, since it never blocks. Absent: call Next().
  // Else `ready` will be called once, by whoever makes it happen, who must not be
  // kept; at the time that is returned Next() is due all the same.
  virtual std::optional<absl::Time> Wait(std::function<void()> ready) {
    return std::nullopt;
  }
  // True if it waited and `ready` will not be called any more. Never blocks.
  virtual bool CancelWait() { return false; }
};

}  // namespace modelstore::server
