#include <unistd.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "client/internal/background.h"
#include "client/internal/convert.h"
#include "client/internal/retry.h"
#include "client/internal/rpc.h"
#include "modelstore/lifecycle.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"

namespace modelstore {
namespace {

// All watchers share one connection, separate from bulk transfers, which use lanes from
// 0, and from unary calls, which use -1.
constexpr int kWatchLane = -2;
// The server sends a heartbeat every 30 s; a stream that misses two is broken.
constexpr std::chrono::seconds kLongestSilence{75};
// A stream that lived this long resets the backoff and the retry timeout.
constexpr std::chrono::seconds kHealthy{1};

// Nullopt for messages that are not events: heartbeats, and kinds that this version of
// the library does not know.
std::optional<ModelEvent> ToEvent(const v1::WatchModelResponse& response) {
  using Kind = ModelEvent::Kind;
  ModelEvent event;
  switch (response.kind_case()) {
    case v1::WatchModelResponse::kState:
      event.kind = Kind::kState;
      event.model = internal::ToModelInfo(response.state());
      return event;
    case v1::WatchModelResponse::kCommitted:
      event.kind = Kind::kCommitted;
      event.checkpoint = internal::ToCheckpointInfo(response.committed());
      event.version = event.checkpoint.version;
      return event;
    case v1::WatchModelResponse::kUpdated:
      event.kind = Kind::kUpdated;
      event.checkpoint = internal::ToCheckpointInfo(response.updated());
      event.version = event.checkpoint.version;
      return event;
    case v1::WatchModelResponse::kDeletedVersion:
      event.kind = Kind::kDeleted;
      event.version = response.deleted_version();
      return event;
    case v1::WatchModelResponse::kAliasMoved:
      event.kind = Kind::kAliasMoved;
      event.alias_move = internal::ToAliasMove(response.alias_moved());
      event.version = event.alias_move.to_version.value_or(0);
      return event;
    case v1::WatchModelResponse::kModelUpdated:
      event.kind = Kind::kModelUpdated;
      event.model = internal::ToModelInfo(response.model_updated());
      return event;
    case v1::WatchModelResponse::kModelDeleted:
      event.kind = Kind::kModelDeleted;
      event.model.uid = response.model_deleted().model_uid();
      return event;
    case v1::WatchModelResponse::kHeartbeat:
    case v1::WatchModelResponse::KIND_NOT_SET:
      break;
  }
  return std::nullopt;
}

}  // namespace

// Used by one thread at a time. `stream` is null while there is no connection.
struct ModelWatcher::State {
  ~State() {
    if (getpid() == pid) return;
    // A child process after fork() has none of gRPC's threads and must not touch its
    // locks: leak what would touch them.
    internal::KeepForever(std::move(connection));
    (void)stream.release();
  }

  // Opens a stream that continues at `cursor`.
  absl::Status Connect(Deadline deadline) {
    auto opened = connection->Open(std::string(internal::kModelStore) + "WatchModel",
                                   kWatchLane, deadline);
    if (!opened.ok()) return opened.status();
    v1::WatchModelRequest request;
    request.set_name(name);
    request.set_cursor(cursor);
    absl::Status s =
        internal::SendRequest(**opened, request.SerializeAsString(), deadline);
    if (!s.ok()) return s;
    stream = *std::move(opened);
    connected = heard = std::chrono::steady_clock::now();
    return absl::OkStatus();
  }

  // Reads the next message. Any failure resets the stream, except DEADLINE_EXCEEDED at
  // the caller's own deadline: then the stream is healthy and stays open.
  absl::StatusOr<v1::WatchModelResponse> Read(Deadline deadline) {
    const Deadline silence = Later(heard, kLongestSilence);
    auto message = stream->Read(std::min(deadline, silence));
    if (absl::IsDeadlineExceeded(message.status()) && deadline <= silence) {
      return absl::DeadlineExceededError(name + ": nothing happened in time");
    }
    if (!message.ok()) {
      const absl::Status why = internal::StreamError(
          *stream, message.status(), After(connection->options().stall_timeout));
      stream.reset();
      if (!absl::IsResourceExhausted(why)) return why;
      // The server ended the stream because this client reads too slowly. The cursor
      // allows to continue, so the error is made transient, with its details (retry
      // delay).
      absl::Status again = absl::UnavailableError(why.message());
      why.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
        again.SetPayload(url, payload);
      });
      return again;
    }
    std::string bytes;
    for (const std::string_view fragment : message->fragments) bytes += fragment;
    v1::WatchModelResponse response;
    if (!ParseMessage(bytes, &response)) {
      stream.reset();
      return absl::InternalError(absl::StrCat(name, ": the server's event is malformed"));
    }
    heard = std::chrono::steady_clock::now();
    return response;
  }

  // Waits until the next attempt to connect is due. `retry_at` persists between calls of
  // Next(), so that a caller with short deadlines does not bypass the backoff.
  absl::Status WaitForTurn(Deadline deadline) {
    // If `retry_at` is long past, Next() was not called in the meantime; that time does
    // not count as failing.
    const Deadline now = std::chrono::steady_clock::now();
    if (now > Later(retry_at, connection->options().retry_timeout)) failing_since.reset();
    std::this_thread::sleep_until(std::min(retry_at, deadline));
    if (retry_at <= deadline) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat(
        name, ": not connected; the last attempt: ", last_failure.message()));
  }

  // Schedules the next attempt and returns OK, or returns the error to give up with.
  absl::Status OnFailure(const absl::Status& failure) {
    if (!internal::IsTransient(failure)) return failure;
    const Deadline now = std::chrono::steady_clock::now();
    if (now > Later(connected, kHealthy)) OnProgress();
    const ConnectOptions& options = connection->options();
    if (!failing_since.has_value()) failing_since = now;
    retry_at = After(backoff.Next(failure));
    last_failure = failure;
    if (retry_at < Later(*failing_since, options.retry_timeout)) return absl::OkStatus();
    failing_since.reset();
    return Annotate(failure,
                    absl::StrCat(name, ": given up after ", options.retry_timeout.count(),
                                 " ms of retries"));
  }

  void OnProgress() {
    backoff.Reset();
    failing_since.reset();
  }

  const pid_t pid = getpid();
  std::shared_ptr<Connection> connection;
  std::string name;
  std::string cursor;
  std::unique_ptr<Stream> stream;
  // When the stream was opened. Deadline::max() until then, so that a failed attempt to
  // connect never counts as healthy.
  Deadline connected = Deadline::max();
  Deadline heard;  // when the last message arrived
  internal::Backoff backoff;
  std::optional<Deadline> failing_since;  // absent while the stream works
  Deadline retry_at = Deadline::min();    // no attempt to connect before this time
  absl::Status last_failure;
  bool over = false;  // kModelDeleted was returned
};

absl::StatusOr<ModelWatcher> ModelWatcher::Open(const Client& client,
                                                std::string_view name,
                                                const WatchOptions& options) {
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  const auto id = ParseModelName("name", absl::string_view(name.data(), name.size()));
  if (!id.ok()) return id.status();
  auto state = std::make_unique<State>();
  if (absl::Status s = internal::CheckString("cursor", options.cursor); !s.ok()) {
    return s;
  }
  state->connection = *std::move(connection);
  state->name = ModelName(*id);
  state->cursor = options.cursor;
  return ModelWatcher(std::move(state));
}

absl::StatusOr<ModelEvent> ModelWatcher::Next(Deadline deadline) {
  State& state = *state_;
  if (getpid() != state.pid) {
    return absl::FailedPreconditionError(
        "this watcher belongs to the parent process: fork() before connecting");
  }
  while (!state.over) {
    absl::Status failure;
    if (state.stream == nullptr) {
      if (absl::Status s = state.WaitForTurn(deadline); !s.ok()) return s;
      state.connected = Deadline::max();
      failure = state.Connect(
          std::min(deadline, After(state.connection->options().stall_timeout)));
    }
    if (failure.ok()) {
      auto response = state.Read(deadline);
      if (response.ok()) {
        state.OnProgress();
        state.cursor = response->cursor();
        std::optional<ModelEvent> event = ToEvent(*response);
        if (!event.has_value()) continue;
        state.over = event->kind == ModelEvent::Kind::kModelDeleted;
        return *std::move(event);
      }
      failure = response.status();
      if (state.stream != nullptr) return failure;
    }
    if (absl::Status s = state.OnFailure(failure); !s.ok()) return s;
  }
  return absl::OutOfRangeError(absl::StrCat(state.name, " was deleted"));
}

const std::string& ModelWatcher::cursor() const { return state_->cursor; }

ModelWatcher::ModelWatcher(std::unique_ptr<State> state) : state_(std::move(state)) {}
ModelWatcher::ModelWatcher(ModelWatcher&&) noexcept = default;
ModelWatcher& ModelWatcher::operator=(ModelWatcher&&) noexcept = default;
ModelWatcher::~ModelWatcher() = default;

}  // namespace modelstore
