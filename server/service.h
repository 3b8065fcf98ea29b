// The RPCs of both services as plain objects over storage, without gRPC: unary
// calls as functions of bytes, streams as sessions that take or give messages.
// The reactors (and the in-process connection of the tests) drive them from the
// threads of the storage pool; everything here may block on the disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/descriptor.h"
#include "storage/checkpoint_store.h"

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
constexpr int64_t kProofBytes = int64_t{128} << 10;

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
  virtual bool StopWaiting() { return false; }
};

enum class MethodKind : uint8_t { kUnary, kInbound, kOutbound };

// Thread-safe.
class Service {
 public:
  virtual ~Service() = default;

  // `method` is the full name, `/modelstore.v1.ModelStore/GetModel`. Absent for
  // an unknown method.
  virtual std::optional<MethodKind> Find(absl::string_view method) const = 0;
  // Serialized request to serialized response. RPCs of the contract that are not
  // built answer UNIMPLEMENTED naming themselves.
  virtual absl::StatusOr<std::string> Call(absl::string_view method,
                                           absl::string_view request) = 0;
  virtual absl::StatusOr<std::unique_ptr<InboundSession>> OpenInbound(
      absl::string_view method) = 0;
  virtual absl::StatusOr<std::unique_ptr<OutboundSession>> OpenOutbound(
      absl::string_view method, absl::string_view request) = 0;
};

// What the streams and the scrub are doing, kept by whoever drives them and told by
// GetStats.
struct Gauges {
  std::atomic<int> active_save_streams = 0;
  std::atomic<int> active_load_streams = 0;
  // Bytes of messages that are being stored or sent.
  std::atomic<int64_t> buffered_bytes = 0;
  // Of the background scrub; see Stats.
  std::atomic<int64_t> scrubbed_bytes = 0;
  std::atomic<int64_t> scrub_damaged_tensors = 0;
  std::atomic<int64_t> last_scrub_time_us = 0;
};

struct ServiceOptions {
  // Told by GetServerInfo.
  int64_t memory_budget_bytes = 0;
  int max_open_uploads = 0;
  int max_open_uploads_per_model = 0;
  absl::Duration upload_min_idle;
  int max_streams = 0;
  int max_watchers = 0;
  int max_streams_per_connection = 0;
  // A watcher to whom nothing happens hears so often that it is connected.
  absl::Duration watch_heartbeat = absl::Seconds(30);
  // May be null.
  std::shared_ptr<const Gauges> gauges;
  // Calls each(0) to each(count - 1), several at once, and returns when all are
  // done. Unset: one after the other.
  std::function<void(int count, const std::function<void(int)>& each)> for_each;
  // Whether the server is shutting down, so that what computes for long ends. May be
  // empty.
  std::function<bool()> draining;
};

// The two services of the contract.
std::vector<const google::protobuf::ServiceDescriptor*> ContractServices();

// `store` is not owned and outlives the service and its sessions; the service
// watches its models.
std::unique_ptr<Service> MakeService(storage::CheckpointStore* store,
                                     const ServiceOptions& options);

}  // namespace modelstore::server
