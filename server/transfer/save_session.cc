#include "server/transfer/save_session.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/core/save_request.h"
#include "server/core/validation.h"

namespace modelstore::server {

absl::Status SaveSession::Begin(const v1::SaveCheckpointRequest& request) {
  auto save = MakeSaveRequest(context_, "checkpoint",
                              {.parent = request.parent(),
                               .checkpoint = request.checkpoint(),
                               .request_id = request.request_id(),
                               .create_model = request.create_model(),
                               .no_base = request.no_base()});
  if (!save.ok()) return save.status();
  model_id_ = save->model_id;
  auto expected = ExpectedLatest(request);
  if (!expected.ok()) return expected.status();
  expected_latest_version_ = *expected;
  allow_empty_ = request.allow_empty();
  auto started = context_.store->saves().StartOneShot(*save);
  if (!started.ok()) return started.status();
  save_ = *std::move(started);
  return absl::OkStatus();
}

absl::Status SaveSession::OnMessage(absl::Span<const absl::string_view> fragments) {
  v1::SaveCheckpointRequest request;
  auto payload = ParseIncoming(fragments, &request);
  if (!payload.ok()) return payload.status();
  if (finished_) return InvalidField("finish", "nothing may follow the last message");
  if (save_ == nullptr) {
    if (auto s = Begin(request); !s.ok()) return s;
  } else if (!request.parent().empty() || request.has_checkpoint() ||
             !request.request_id().empty() || request.create_model() ||
             request.has_expected_latest_version() || request.expect_no_version() ||
             request.allow_empty() || request.no_base()) {
    return InvalidField("parent", "the header belongs in the first message alone");
  }
  if (request.has_manifest()) {
    if (manifest_over_) {
      return InvalidField("manifest", "all its parts precede the first chunk");
    }
    // Size in memory, not on the wire: small fields take several times their encoding.
    const auto bytes = static_cast<int64_t>(request.manifest().SpaceUsedLong());
    if (auto s = reservation_.Grow(bytes); !s.ok()) return s;
    std::vector<std::vector<NamedTensor>> named;
    auto s =
        ValidateManifestPart("manifest", request.manifest(), Digests::kOptional, named);
    if (!s.ok()) return s;
    s = save_->AddManifest(
        ManifestPartToRecord(std::move(*request.mutable_manifest()), std::move(named)));
    if (!s.ok()) return s;
  }
  // Chunks without a digest are assigned to the manifest's pieces in order, so the
  // manifest must be complete before the first chunk.
  if (request.chunks_size() > 0) manifest_over_ = true;
  auto s = ForEachChunk(request.chunks(), *payload, EmptyDigest::kAccepted,
                        [&](const std::optional<Digest>& digest,
                            absl::Span<const absl::string_view> bytes) {
                          return save_->Put(digest, bytes);
                        });
  if (!s.ok()) return s;
  finished_ = request.finish();
  return absl::OkStatus();
}

absl::StatusOr<std::string> SaveSession::OnEnd() {
  if (save_ == nullptr) {
    return absl::InvalidArgumentError(
        "the stream ended without a message: begin with `parent` and `checkpoint`");
  }
  // A client that stops early half-closes its stream too. Only `finish` shows that it has
  // sent everything.
  if (!finished_) {
    save_.reset();
    return absl::InvalidArgumentError(
        "the stream ended without `finish`: nothing was saved");
  }
  auto record = save_->Commit(expected_latest_version_, allow_empty_);
  if (!record.ok()) return record.status();
  auto checkpoint = CommittedCheckpoint(context_, model_id_, *record);
  if (!checkpoint.ok()) return checkpoint.status();
  return checkpoint->SerializeAsString();
}

}  // namespace modelstore::server
