#include "server/operations/watch_session.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "proto/contract/steady_time.h"
#include "server/core/convert.h"
#include "server/core/page_token.h"
#include "server/core/request_codec.h"
#include "server/core/resource_names.h"

namespace modelstore::server {
namespace {

// Retry delay for a watcher that fell behind the log.
constexpr int kSlowWatcherDelayMs = 100;

// A cursor is a page token whose scope is the model's uid and whose position is a
// generation of the model.
std::string Scope(absl::string_view uid) { return absl::StrCat("WatchModel/", uid); }

// Returns the generation of a cursor; absent for an empty cursor. INVALID_ARGUMENT for a
// cursor of another model, or of a generation that the model has not reached.
absl::StatusOr<std::optional<uint64_t>> ReadCursor(const records::ModelRecord& model,
                                                   absl::string_view cursor) {
  if (cursor.empty()) return std::nullopt;
  const auto position = ReadPageToken(Scope(model.uid()), cursor);
  uint64_t generation = 0;
  if (position.ok() && absl::SimpleAtoi(*position, &generation) &&
      generation <= model.generation()) {
    return generation;
  }
  return InvalidField("cursor",
                      absl::StrCat("not one of ", ModelName(model.model_id()),
                                   " as it is now (one deleted since is another model): "
                                   "leave it empty to begin with the present state"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutboundSession>> WatchSession::Open(
    ServiceContext& context, absl::string_view bytes) {
  v1::WatchModelRequest request;
  if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
  auto id = ParseModelName("name", request.name());
  if (!id.ok()) return id.status();
  auto model = context.store->models().Get(*id);
  if (!model.ok()) return model.status();
  auto seen = ReadCursor(*model, request.cursor());
  if (!seen.ok()) return seen.status();
  return std::unique_ptr<OutboundSession>(
      new WatchSession(context, *std::move(id), model->uid(), *seen));
}

std::optional<absl::Time> WatchSession::Wait(std::function<void()> ready) {
  if (!began_ || more_ || deleted_ || !subscription_.Wait(std::move(ready)))
    return std::nullopt;
  return told_ + context_.options.watch_heartbeat;
}

absl::StatusOr<v1::Checkpoint> WatchSession::Version(const records::ModelRecord& model,
                                                     int64_t version) {
  auto record = context_.store->checkpoints().Get(model_id_, version);
  // The record was read by name. If the model has been deleted and created again, the
  // record is of the new model.
  const absl::Status same =
      record.ok() ? ModelOfUid(context_, model_id_, uid_).status() : record.status();
  if (same.ok()) return CheckpointFromRecord(model, *record);
  if (!absl::IsNotFound(same)) return same;
  v1::Checkpoint gone;
  gone.set_name(CheckpointNameOf(model_id_, version));
  gone.set_version(version);
  gone.set_model_uid(uid_);
  return gone;
}

absl::Status WatchSession::Describe(const records::ModelRecord& model,
                                    const records::EventRecord& event,
                                    v1::WatchModelResponse* response) {
  switch (event.kind_case()) {
    case records::EventRecord::kCommittedVersion:
    case records::EventRecord::kUpdatedVersion: {
      const bool committed = event.has_committed_version();
      auto checkpoint =
          Version(model, committed ? event.committed_version() : event.updated_version());
      if (!checkpoint.ok()) return checkpoint.status();
      *(committed ? response->mutable_committed() : response->mutable_updated()) =
          *std::move(checkpoint);
      break;
    }
    case records::EventRecord::kDeletedVersion:
      response->set_deleted_version(event.deleted_version());
      break;
    case records::EventRecord::kAliasMoved:
      *response->mutable_alias_moved() = AliasMoveFromRecord(event.alias_moved());
      break;
    // KIND_NOT_SET is an event of a newer server: the model changed in some way.
    case records::EventRecord::kModelUpdated:
    case records::EventRecord::KIND_NOT_SET:
      *response->mutable_model_updated() = ModelFromRecord(model);
      break;
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::WatchModelResponse> WatchSession::NextChange(
    const records::ModelRecord& model) {
  v1::WatchModelResponse response;
  auto events = context_.store->models().Events(model, *seen_, 1);
  if (absl::IsOutOfRange(events.status())) {
    if (began_) {
      return Overloaded(absl::StrCat(ModelName(model_id_),
                                     " changes faster than this watcher reads: come back "
                                     "with the last cursor"),
                        kSlowWatcherDelayMs);
    }
    seen_ = model.generation();
    *response.mutable_state() = ModelFromRecord(model);
    return response;
  }
  if (!events.ok()) return events.status();
  if (events->empty()) return response;
  const storage::Models::Event& event = events->front();
  if (auto s = Describe(model, event.record, &response); !s.ok()) return s;
  seen_ = event.generation;
  return response;
}

absl::StatusOr<v1::WatchModelResponse> WatchSession::NextEvent() {
  // Before the model is read, so that a change after the read is not missed.
  subscription_.MarkSeen();
  v1::WatchModelResponse response;
  auto model = context_.store->models().Get(model_id_);
  if (absl::IsNotFound(model.status()) || (model.ok() && model->uid() != uid_)) {
    deleted_ = true;
    response.mutable_model_deleted()->set_model_uid(uid_);
    return response;
  }
  if (!model.ok()) return model.status();
  if (seen_.has_value()) {
    auto change = NextChange(*model);
    if (!change.ok()) return change.status();
    response = *std::move(change);
  } else {
    seen_ = model->generation();
    *response.mutable_state() = ModelFromRecord(*model);
  }
  more_ = *seen_ < model->generation();
  return response;
}

absl::StatusOr<std::optional<OutboundMessage>> WatchSession::Next() {
  if (deleted_) return std::nullopt;
  auto response = NextEvent();
  if (!response.ok()) return response.status();
  began_ = true;
  const absl::Time now = SteadyNow();
  if (response->kind_case() == v1::WatchModelResponse::KIND_NOT_SET) {
    // Nothing to send, for example because the change that woke the watcher was sent
    // before. The driver calls Wait() before the next call.
    if (now < told_ + context_.options.watch_heartbeat)
      return OutboundMessage::AgainAfter(absl::ZeroDuration());
    response->mutable_heartbeat();
  }
  told_ = now;
  response->set_cursor(MakePageToken(Scope(uid_), absl::StrCat(seen_.value_or(0))));
  return OutboundMessage{response->SerializeAsString(), {}};
}

}  // namespace modelstore::server
