#include "server/transfer/upload_session.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/validation.h"

namespace modelstore::server {

absl::Status UploadSession::Begin(const v1::UploadChunksRequest& request) {
  auto name = ParseUploadName("upload", request.upload());
  if (!name.ok()) return name.status();
  auto upload = context_.store->uploads().Open(name->model_id, name->upload_id);
  if (!upload.ok()) return upload.status();
  auto state = (*upload)->State();
  if (!state.ok()) return state.status();
  // A retry that arrives after the commit: the error names the version.
  if (state->record.committed_version() != 0) {
    return UploadCommitted(request.upload(), state->record.committed_version());
  }
  if (request.contribution() < 0 || static_cast<uint32_t>(request.contribution()) >=
                                        state->record.contribution_count()) {
    return InvalidField("contribution",
                        absl::StrCat("from 0 to ", state->record.contribution_count() - 1,
                                     ", got ", request.contribution()));
  }
  name_ = UploadNameOf(name->model_id, name->upload_id);
  contribution_ = static_cast<uint32_t>(request.contribution());
  upload_ = *std::move(upload);
  return absl::OkStatus();
}

absl::Status UploadSession::AddManifest(v1::UploadChunksRequest* request) {
  if (manifest_complete_) {
    return InvalidField("manifest", "manifest_complete was sent before");
  }
  std::vector<std::vector<NamedTensor>> named;
  auto s =
      ValidateManifestPart("manifest", request->manifest(), Digests::kRequired, named);
  if (!s.ok()) return s;
  s = upload_->AddManifest(
      contribution_,
      ManifestPartToRecord(std::move(*request->mutable_manifest()), std::move(named)),
      !manifest_begun_, request->manifest_complete());
  manifest_begun_ = true;
  manifest_complete_ = request->manifest_complete();
  return s;
}

absl::Status UploadSession::OnMessage(absl::Span<const absl::string_view> fragments) {
  v1::UploadChunksRequest request;
  auto payload = ParseIncoming(fragments, &request);
  if (!payload.ok()) return payload.status();
  if (upload_ == nullptr) {
    if (auto s = Begin(request); !s.ok()) return s;
  } else if ((!request.upload().empty() && request.upload() != name_) ||
             (request.contribution() != 0 &&
              static_cast<uint32_t>(request.contribution()) != contribution_)) {
    // Later messages may repeat the header, but not change it.
    return InvalidField("upload", "another one than in the first message");
  }
  if (request.has_manifest() || request.manifest_complete()) {
    if (auto s = AddManifest(&request); !s.ok()) return s;
  }
  if (request.chunks_size() > 0 && sink_ == nullptr) {
    auto sink = upload_->OpenSink();
    if (!sink.ok()) return sink.status();
    sink_ = *std::move(sink);
  }
  return ForEachChunk(request.chunks(), *payload, EmptyDigest::kRefused,
                      [&](const std::optional<Digest>& digest,
                          absl::Span<const absl::string_view> bytes) {
                        return sink_->Put(digest, bytes).status();
                      });
}

absl::StatusOr<std::string> UploadSession::OnEnd() {
  if (upload_ == nullptr) {
    return absl::InvalidArgumentError(
        "the stream ended without a message: begin with `upload`");
  }
  v1::UploadChunksResponse response;
  if (sink_ != nullptr) {
    // Sealed before the response, which promises that the chunks survive a restart.
    if (auto s = sink_->Close(); !s.ok()) return s;
    const storage::ChunkSink::Counts counts = sink_->counts();
    response.set_received_chunks(counts.chunks);
    response.set_received_bytes(counts.bytes);
    response.set_duplicate_bytes(counts.duplicate_bytes);
    sink_.reset();
  }
  return response.SerializeAsString();
}

}  // namespace modelstore::server
