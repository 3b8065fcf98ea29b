#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/resource_names.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

// Maximum attachment bytes in a response, which must stay below kMaxAnswerBytes.
constexpr int64_t kLargestPart = int64_t{3} << 20;

}  // namespace

absl::StatusOr<v1::GetAttachmentResponse> GetAttachment(
    ServiceContext& context, const v1::GetAttachmentRequest& request) {
  auto ref = ParseCheckpointRef("parent", request.parent());
  if (!ref.ok()) return ref.status();
  if (request.offset() < 0) return InvalidField("offset", "must not be negative");
  if (request.max_bytes() < 0) return InvalidField("max_bytes", "must not be negative");
  auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
  if (!record.ok()) return record.status();
  const std::string checkpoint = CheckpointNameOf(ref->model_id, record->version());
  // Attachments are in the last pages of the manifest, so it is searched from its end, up
  // to the first page without attachments.
  for (uint32_t page = record->manifest_pages(); page-- > 0;) {
    auto manifest = context.store->checkpoints().ReadManifestPage(*record, page);
    if (!manifest.ok()) return manifest.status();
    for (const auto& stored : manifest->attachments()) {
      if (stored.name() != request.attachment()) continue;
      const auto size = static_cast<int64_t>(stored.data().size());
      if (request.offset() > size) {
        return absl::OutOfRangeError(absl::StrCat("offset: attachment ", stored.name(),
                                                  " of ", checkpoint, " has ", size,
                                                  " bytes"));
      }
      // Checked for every part, as the whole attachment is in memory anyway.
      if (ComputeDigest(DigestAlgorithm::kXxh3_128, stored.data()).bytes() !=
          stored.digest()) {
        return MakeError(ERROR_REASON_DATA_DAMAGED,
                         absl::StrCat("attachment ", stored.name(), " of ", checkpoint,
                                      " does not match its digest"),
                         {{"resource_type", "attachment"},
                          {"resource_name",
                           absl::StrCat(checkpoint, "/attachments/", stored.name())}});
      }
      const int64_t wanted = request.max_bytes() == 0
                                 ? kLargestPart
                                 : std::min<int64_t>(request.max_bytes(), kLargestPart);
      const int64_t end = std::min(size, request.offset() + wanted);
      v1::GetAttachmentResponse response;
      v1::AttachmentInfo* info = response.mutable_info();
      info->set_name(stored.name());
      info->set_media_type(stored.media_type());
      info->set_size_bytes(size);
      info->set_digest(absl::BytesToHexString(stored.digest()));
      response.set_data(stored.data().substr(request.offset(), end - request.offset()));
      if (end < size) response.set_next_offset(end);
      return response;
    }
    if (manifest->attachments_size() == 0) break;
  }
  return DoesNotExist("attachment",
                      absl::StrCat(checkpoint, "/attachments/", request.attachment()));
}

}  // namespace modelstore::server
