// The session of UploadChunks: adds chunks, and parts of the manifest of one
// contribution, to an upload. An upload may have several such streams at once.
#pragma once

#include <memory>
#include <string>

#include "server/core/service_context.h"
#include "server/core/session.h"
#include "server/transfer/chunk_message.h"
#include "storage/api/uploads.h"

namespace modelstore::server {

// The chunks it received stay in the upload however the stream ends: OnEnd() or the
// destructor seals them. The client can resume with another stream.
class UploadSession final : public InboundSession {
 public:
  explicit UploadSession(ServiceContext& context) : context_(context) {}

  absl::Status OnMessage(absl::Span<const absl::string_view> fragments) override;
  absl::StatusOr<std::string> OnEnd() override;

 private:
  // Opens the upload that the first message names.
  absl::Status Begin(const v1::UploadChunksRequest& request);
  // Adds the part of the manifest in `request`. The first part of a stream replaces what
  // earlier streams sent for the contribution.
  absl::Status AddManifest(v1::UploadChunksRequest* request);

  ServiceContext& context_;
  // Null before the first message.
  std::shared_ptr<storage::Upload> upload_;
  std::string name_;
  uint32_t contribution_ = 0;
  bool manifest_begun_ = false;     // this stream sent a part
  bool manifest_complete_ = false;  // this stream sent manifest_complete
  // Opened by the first chunk, so that a stream with only a manifest writes no pack.
  std::unique_ptr<storage::ChunkSink> sink_;
};

}  // namespace modelstore::server
