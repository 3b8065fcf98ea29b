// SaveCheckpoint: header, manifest, chunks, `finish`.
#pragma once

#include <memory>

#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/transfer/chunk_message.h"
#include "storage/api/saves.h"

namespace modelstore::server {

// Destroyed before OnEnd(), or ended without `finish`, it leaves nothing.
class SaveSession final : public InboundSession {
 public:
  explicit SaveSession(ServiceContext& context)
      : context_(context), reservation_(context.memory) {}

  absl::Status OnMessage(absl::Span<const absl::string_view> fragments) override;
  absl::StatusOr<std::string> OnEnd() override;

 private:
  absl::Status Begin(const v1::SaveCheckpointRequest& request);

  ServiceContext& context_;
  std::string model_id_;
  std::optional<int64_t> expected_latest_version_;
  bool allow_empty_ = false;
  std::unique_ptr<storage::OneShotSave> save_;
  // Storage holds the manifest until the commit.
  Reservation reservation_;
  bool manifest_over_ = false;
  bool finished_ = false;
};

}  // namespace modelstore::server
