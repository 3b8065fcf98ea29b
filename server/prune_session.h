// PruneCheckpoints: looks at every version, telling how far it is, then deletes.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "modelstore/v1/operations.pb.h"
#include "server/handlers.h"
#include "server/retention.h"
#include "server/service.h"

namespace modelstore::server {

class PruneSession final : public OutboundSession {
 public:
  static absl::StatusOr<std::unique_ptr<OutboundSession>> Open(ServiceContext& context,
                                                               absl::string_view request);

  absl::StatusOr<std::optional<OutboundMessage>> Next() override;
  void Cancel() override { cancelled_ = true; }

 private:
  PruneSession(ServiceContext& context, storage::records::ModelRecord model,
               const v1::RetentionPolicy& policy, bool validate_only);

  // Looks at the next versions.
  absl::StatusOr<OutboundMessage> Look();
  absl::StatusOr<OutboundMessage> Delete();
  // Versions of this model that open uploads build on.
  absl::StatusOr<absl::flat_hash_set<int64_t>> BasesOfUploads() const;

  ServiceContext& context_;
  const storage::records::ModelRecord model_;
  const bool validate_only_;
  std::atomic<bool> cancelled_ = false;
  RetentionPlan plan_;
  std::string after_;
  bool looked_ = false;
  bool done_ = false;
};

}  // namespace modelstore::server
