#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/page_filler.h"
#include "server/core/page_token.h"
#include "server/core/resource_names.h"
#include "server/core/save_request.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

constexpr int64_t kLongestTimeToLive = int64_t{366} * 24 * 3600;  // seconds

// Returns the requested time to live; 0 stands for the server's default.
absl::StatusOr<absl::Duration> TimeToLive(const v1::CreateUploadRequest& request) {
  if (!request.has_time_to_live()) return absl::ZeroDuration();
  const auto& ttl = request.time_to_live();
  if (ttl.seconds() < 0 || ttl.nanos() < 0 || ttl.seconds() > kLongestTimeToLive ||
      ttl.nanos() > 999'999'999) {
    return InvalidField("time_to_live", "from 0 to 366 days");
  }
  return ToDuration(ttl);
}

}  // namespace

absl::StatusOr<v1::Upload> CreateUpload(ServiceContext& context,
                                        const v1::CreateUploadRequest& request) {
  const v1::Upload& upload = request.upload();
  if (upload.contribution_count() < 0 ||
      upload.contribution_count() > kMaxContributions) {
    return InvalidField(
        "upload.contribution_count",
        absl::StrCat("is ", upload.contribution_count(), ", must be from 1 to ",
                     kMaxContributions, "; 0 means 1"));
  }
  const int contributions = std::max(upload.contribution_count(), 1);
  auto time_to_live = TimeToLive(request);
  if (!time_to_live.ok()) return time_to_live.status();
  auto save = MakeSaveRequest(context, "upload.checkpoint",
                              {.parent = request.parent(),
                               .checkpoint = upload.checkpoint(),
                               .request_id = request.request_id(),
                               .create_model = request.create_model(),
                               .no_base = request.no_base(),
                               .contribution_count = contributions});
  if (!save.ok()) return save.status();
  auto record = context.store->uploads().Create(
      *save, static_cast<uint32_t>(contributions), *time_to_live);
  if (!record.ok()) return record.status();
  return UploadFromRecord(*record);
}

absl::StatusOr<v1::FindMissingChunksResponse> FindMissingChunks(
    ServiceContext& context, const v1::FindMissingChunksRequest& request) {
  const size_t length = DigestLength(DigestAlgorithm::kXxh3_128);
  if (request.digests().size() % length != 0) {
    return InvalidField("digests",
                        absl::StrCat("not a multiple of ", length, " bytes long"));
  }
  if (request.digests().size() / length > static_cast<size_t>(kMaxDigestsPerCall)) {
    return InvalidField(
        "digests", absl::StrCat("has ", request.digests().size() / length, ", at most ",
                                kMaxDigestsPerCall, " a call"));
  }
  v1::FindMissingChunksResponse response;
  absl::StatusOr<std::vector<uint32_t>> missing;
  // The name is of an upload, whose chunks and base are searched, or of a checkpoint that
  // would be the base of a save.
  if (auto name = ParseUploadName("name", request.name()); name.ok()) {
    auto upload = context.store->uploads().Open(name->model_id, name->upload_id);
    if (!upload.ok()) return upload.status();
    auto state = (*upload)->State();
    if (!state.ok()) return state.status();
    if (state->record.base_version() != 0) {
      response.set_base_checkpoint(
          CheckpointNameOf(state->record.base_model_id(), state->record.base_version()));
    }
    missing = (*upload)->FindMissing(request.digests());
  } else {
    auto ref = ParseCheckpointRef("name", request.name());
    if (!ref.ok()) return ref.status();
    auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
    if (!record.ok()) return record.status();
    response.set_base_checkpoint(CheckpointNameOf(ref->model_id, record->version()));
    missing = context.store->saves().FindMissing(*record, request.digests());
  }
  if (!missing.ok()) return missing.status();
  response.mutable_missing()->Add(missing->begin(), missing->end());
  return response;
}

absl::StatusOr<v1::Upload> GetUpload(ServiceContext& context,
                                     const v1::GetUploadRequest& request) {
  auto name = ParseUploadName("name", request.name());
  if (!name.ok()) return name.status();
  auto upload = context.store->uploads().Open(name->model_id, name->upload_id);
  if (!upload.ok()) return upload.status();
  auto state = (*upload)->State();
  if (!state.ok()) return state.status();
  return UploadFromState(*state);
}

absl::StatusOr<v1::Checkpoint> CommitUpload(ServiceContext& context,
                                            const v1::CommitUploadRequest& request) {
  auto name = ParseUploadName("name", request.name());
  if (!name.ok()) return name.status();
  auto expected = ExpectedLatest(request);
  if (!expected.ok()) return expected.status();
  auto upload = context.store->uploads().Open(name->model_id, name->upload_id);
  if (!upload.ok()) return upload.status();
  auto record = (*upload)->Commit(*expected, request.allow_empty());
  if (!record.ok()) return record.status();
  return CommittedCheckpoint(context, name->model_id, *record);
}

absl::StatusOr<google::protobuf::Empty> DeleteUpload(
    ServiceContext& context, const v1::DeleteUploadRequest& request) {
  auto name = ParseUploadName("name", request.name());
  if (!name.ok()) return name.status();
  auto upload = context.store->uploads().Open(name->model_id, name->upload_id);
  if (!upload.ok()) return upload.status();
  if (auto s = (*upload)->Delete(); !s.ok()) return s;
  return google::protobuf::Empty();
}

absl::StatusOr<v1::ListUploadsResponse> ListUploads(
    ServiceContext& context, const v1::ListUploadsRequest& request) {
  std::string model_id;
  if (request.parent() != "models/-") {  // "models/-": all models
    auto parsed = ParseModelName("parent", request.parent());
    if (!parsed.ok()) return parsed.status();
    auto model = context.store->models().Get(*parsed);
    if (!model.ok()) return model.status();
    model_id = *parsed;
  }
  auto limit = PageSize(request.page_size(), 100, 1000);
  if (!limit.ok()) return limit.status();
  const std::string scope = absl::StrCat("ListUploads/", model_id);
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListUploadsResponse response;
  auto next = FillPage<storage::UploadState, v1::Upload>(
      *limit, [&](int n) { return context.store->uploads().List(model_id, *after, n); },
      [](const storage::UploadState& state) {
        v1::Upload upload = UploadFromState(state);
        // Left out of lists: an upload may have kMaxContributions of them.
        upload.clear_contributions();
        return upload;
      },
      response.mutable_uploads());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

}  // namespace modelstore::server
