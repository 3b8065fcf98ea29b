// UploadChunks: chunks, and one contribution's manifest, into an upload.
#pragma once

#include <memory>
#include <string>

#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/transfer/chunk_message.h"
#include "storage/api/uploads.h"

namespace modelstore::server {

// However it ends, what it brought is sealed: by OnEnd(), or when it is
// destroyed.
class UploadSession final : public InboundSession {
 public:
  explicit UploadSession(ServiceContext& context) : context_(context) {}

  absl::Status OnMessage(absl::Span<const absl::string_view> fragments) override;
  absl::StatusOr<std::string> OnEnd() override;

 private:
  absl::Status Begin(const v1::UploadChunksRequest& request);
  absl::Status AddManifest(v1::UploadChunksRequest* request);

  ServiceContext& context_;
  // As the first message names it; null before.
  std::shared_ptr<storage::Upload> upload_;
  std::string name_;
  uint32_t contribution_ = 0;
  bool manifest_begun_ = false;
  bool manifest_complete_ = false;
  // Opened by the first chunk: a stream of manifest alone makes no pack.
  std::unique_ptr<storage::ChunkSink> sink_;
};

}  // namespace modelstore::server
