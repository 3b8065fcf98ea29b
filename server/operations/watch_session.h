// The session of WatchModel: sends the state of the model, or the changes after a cursor,
// then each new change. A session keeps only its position and reads the model's log in
// storage, one entry a message, so that a slow watcher holds no memory except for the
// message being sent.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "proto/contract/steady_time.h"
#include "server/core/convert.h"
#include "server/core/model_watchers.h"
#include "server/core/service_context.h"
#include "server/core/session.h"
#include "storage/api/models.h"

namespace modelstore::server {

class WatchSession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  std::optional<absl::Time> Wait(std::function<void()> ready) override;
  bool CancelWait() override { return subscription_.CancelWait(); }

 private:
  // `seen` is the generation of the client's cursor. Absent: the state is sent first.
  WatchSession(ServiceContext& context, std::string model_id, std::string uid,
               std::optional<uint64_t> seen)
      : context_(context),
        model_id_(std::move(model_id)),
        uid_(std::move(uid)),
        seen_(seen),
        subscription_(context.watchers, uid_) {}

  // Returns the next message; without a kind if nothing has happened.
  absl::StatusOr<v1::WatchModelResponse> NextEvent();
  // Returns the message for the first entry of the log after seen_, and advances seen_.
  // If the log no longer has that entry: the state at the start of a stream, UNAVAILABLE
  // later.
  absl::StatusOr<v1::WatchModelResponse> NextChange(const records::ModelRecord& model);
  // Sets the kind of `response` to what `event` describes.
  absl::Status Describe(const records::ModelRecord& model,
                        const records::EventRecord& event,
                        v1::WatchModelResponse* response);
  // Returns a version in its current state; if it was deleted, only its name.
  absl::StatusOr<v1::Checkpoint> Version(const records::ModelRecord& model,
                                         int64_t version);

  ServiceContext& context_;
  const std::string model_id_;
  const std::string uid_;
  // Generation of the model up to which changes were sent.
  std::optional<uint64_t> seen_;
  bool began_ = false;    // Next() has been called
  bool more_ = false;     // the log has entries after seen_: do not wait
  bool deleted_ = false;  // the deletion was sent: the stream ends
  // Time of the last message, for the heartbeat.
  absl::Time told_ = SteadyNow();
  ModelWatchers::Subscription subscription_;
};

}  // namespace modelstore::server
