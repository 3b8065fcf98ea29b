// WatchModel: the present state or what came after a cursor, then each change. A
// session keeps its cursor alone and reads the model's log in storage, one entry a
// message: a slow watcher holds no more than the messages that gRPC is sending.
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
  // `seen`: absent: nothing, the state comes first.
  WatchSession(ServiceContext& context, std::string model_id, std::string uid,
               std::optional<uint64_t> seen)
      : context_(context),
        model_id_(std::move(model_id)),
        uid_(std::move(uid)),
        seen_(seen),
        subscription_(context.watchers, uid_) {}

  // What follows the last message; without a kind if nothing does.
  absl::StatusOr<v1::WatchModelResponse> NextEvent();
  absl::StatusOr<v1::WatchModelResponse> NextChange(const records::ModelRecord& model);
  absl::Status Describe(const records::ModelRecord& model,
                        const records::EventRecord& event,
                        v1::WatchModelResponse* response);
  absl::StatusOr<v1::Checkpoint> Version(const records::ModelRecord& model,
                                         int64_t version);

  ServiceContext& context_;
  const std::string model_id_;
  const std::string uid_;
  // The generation that the watcher knows of.
  std::optional<uint64_t> seen_;
  bool began_ = false;
  bool more_ = false;
  bool deleted_ = false;
  absl::Time told_ = SteadyNow();
  ModelWatchers::Subscription subscription_;
};

}  // namespace modelstore::server
