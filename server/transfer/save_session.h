// The session of SaveCheckpoint: a version in one stream. The first message has the
// header; then follow all parts of the manifest, the chunks, and `finish`. A message may
// carry several of these.
#pragma once

#include <memory>

#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/transfer/chunk_message.h"
#include "storage/api/saves.h"

namespace modelstore::server {

// Commits in OnEnd(), and only if `finish` was received. If it is destroyed before that
// nothing is saved.
class SaveSession final : public InboundSession {
 public:
  explicit SaveSession(ServiceContext& context)
      : context_(context), reservation_(context.memory) {}

  absl::Status OnMessage(absl::Span<const absl::string_view> fragments) override;
  absl::StatusOr<std::string> OnEnd() override;

 private:
  // Starts the save by the header in the first message.
  absl::Status Begin(const v1::SaveCheckpointRequest& request);

  ServiceContext& context_;
  // From the header.
  std::string model_id_;
  std::optional<int64_t> expected_latest_version_;
  bool allow_empty_ = false;
  // Null before the first message.
  std::unique_ptr<storage::OneShotSave> save_;
  // For the manifest, which storage keeps in memory until the commit.
  Reservation reservation_;
  bool manifest_over_ = false;  // a chunk was received: no more parts are accepted
  bool finished_ = false;       // `finish` was received: no more messages are accepted
};

}  // namespace modelstore::server
