
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "re2/re2.h"
#include "server/core/convert.h"
#include "server/core/page_filler.h"
#include "server/core/page_token.h"
#include "server/core/pattern.h"
#include "server/core/resource_names.h"
#include "server/core/tensor_selector.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

// A position in the table of tensors, encoded in page tokens: a page of the manifest and
// the index of the next tensor in it.
struct TablePosition {
  uint32_t page = 0;
  int tensor = 0;

  std::string ToString() const { return absl::StrCat(page, ":", tensor); }
};

absl::StatusOr<TablePosition> ParsePosition(absl::string_view text) {
  TablePosition position;
  if (text.empty()) return position;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  if (parts.size() == 2 && absl::SimpleAtoi(parts[0], &position.page) &&
      absl::SimpleAtoi(parts[1], &position.tensor) && position.tensor >= 0) {
    return position;
  }
  return InvalidField("page_token", "not a next_page_token of this list");
}

// The filters of ListTensors. A tensor must pass all of them.
struct TensorFilter {
  std::string section;                    // empty: all
  absl::flat_hash_set<std::string> keys;  // empty: all
  std::string prefix;
  std::unique_ptr<RE2> regex;  // of the whole key; null: all

  bool Lists(const records::TensorRecord& tensor) const {
    return (section.empty() || tensor.section() == section) &&
           (keys.empty() || keys.contains(tensor.key())) &&
           absl::StartsWith(tensor.key(), prefix) &&
           (regex == nullptr || RE2::FullMatch(tensor.key(), *regex));
  }
};

absl::StatusOr<TensorFilter> MakeFilter(const v1::ListTensorsRequest& request) {
  TensorFilter filter;
  filter.section = request.section();
  filter.prefix = request.prefix();
  size_t bytes = 0;
  for (const std::string& key : request.keys()) bytes += key.size();
  if (request.keys_size() > kMaxSelectionEntries || bytes > kMaxSelectionBytes) {
    return InvalidField("keys",
                        absl::StrCat("has ", request.keys_size(), " entries and ", bytes,
                                     " bytes, at most ", kMaxSelectionEntries, " and ",
                                     kMaxSelectionBytes, " are allowed"));
  }
  filter.keys.insert(request.keys().begin(), request.keys().end());
  if (request.regex().empty()) return filter;
  auto regex = CompilePattern("regex", request.regex());
  if (!regex.ok()) return regex.status();
  filter.regex = *std::move(regex);
  return filter;
}

// NOT_FOUND if a key of the filter is in none of the listed sections.
absl::Status CheckKeys(ServiceContext& context, const records::CheckpointRecord& record,
                       const TensorFilter& filter, absl::string_view checkpoint) {
  absl::flat_hash_set<std::string> missing = filter.keys;
  for (uint32_t p = 0; p < record.manifest_pages() && !missing.empty(); ++p) {
    auto page = context.store->checkpoints().ReadManifestPage(record, p);
    if (!page.ok()) return page.status();
    for (const records::TensorRecord& tensor : page->tensors()) {
      if (filter.section.empty() || tensor.section() == filter.section) {
        missing.erase(tensor.key());
      }
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return NoSuchKeys("keys", {missing.begin(), missing.end()}, checkpoint);
}

// Appends tensors, starting at `position`, until the page has `limit` entries or
// kPageBytes. Returns the position of the next page; absent at the end of the table.
absl::StatusOr<std::optional<TablePosition>> FillTensors(
    ServiceContext& context, const records::CheckpointRecord& record,
    const TensorFilter& filter, Pieces pieces, TablePosition position, int limit,
    v1::ListTensorsResponse* response) {
  size_t bytes = 0;
  for (; position.page < record.manifest_pages(); ++position.page, position.tensor = 0) {
    auto page = context.store->checkpoints().ReadManifestPage(record, position.page);
    if (!page.ok()) return page.status();
    for (; position.tensor < page->tensors_size(); ++position.tensor) {
      const records::TensorRecord& stored = page->tensors(position.tensor);
      if (!filter.Lists(stored)) continue;
      if (response->tensors_size() == limit) return position;
      v1::Tensor tensor = TensorFromRecord(stored, pieces);
      const size_t size = tensor.ByteSizeLong() + 8;  // tag and length
      if (size > kPageBytes) {
        return AnswerTooLarge(absl::StrCat("the digests of tensor ",
                                           TensorNameOf(stored.section(), stored.key())),
                              "leave out with_digests");
      }
      if (bytes + size > kPageBytes) return position;
      bytes += size;
      *response->add_tensors() = std::move(tensor);
    }
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<v1::ListTensorsResponse> ListTensors(
    ServiceContext& context, const v1::ListTensorsRequest& request) {
  auto ref = ParseCheckpointRef("parent", request.parent());
  if (!ref.ok()) return ref.status();
  auto limit = PageSize(request.page_size(), 1000, 10'000);
  if (!limit.ok()) return limit.status();
  auto filter = MakeFilter(request);
  if (!filter.ok()) return filter.status();
  auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
  if (!record.ok()) return record.status();
  // The manifest id makes a token invalid if `parent` is an alias that has moved.
  const std::string scope =
      absl::StrCat("ListTensors/", record->manifest_id(), "/", request.section(), "/",
                   request.prefix(), "/", request.regex(), "/", request.with_digests(),
                   "/", absl::StrJoin(request.keys(), "/"));
  auto token = ReadPageToken(scope, request.page_token());
  if (!token.ok()) return token.status();
  auto position = ParsePosition(*token);
  if (!position.ok()) return position.status();
  // Reads the whole table, so only for the first page.
  if (request.page_token().empty()) {
    auto s = CheckKeys(context, *record, *filter,
                       CheckpointNameOf(ref->model_id, record->version()));
    if (!s.ok()) return s;
  }
  const Pieces pieces = request.with_digests() ? Pieces::kHexDigests : Pieces::kBoxes;
  v1::ListTensorsResponse response;
  auto next =
      FillTensors(context, *record, *filter, pieces, *position, *limit, &response);
  if (!next.ok()) return next.status();
  if (next->has_value()) {
    response.set_next_page_token(MakePageToken(scope, (*next)->ToString()));
  }
  return response;
}

absl::StatusOr<v1::Section> GetSection(ServiceContext& context,
                                       const v1::GetSectionRequest& request) {
  auto ref = ParseCheckpointRef("parent", request.parent());
  if (!ref.ok()) return ref.status();
  if (auto s = ValidateSectionId("section", request.section()); !s.ok()) return s;
  auto record = context.store->checkpoints().Get(ref->model_id, ref->version);
  if (!record.ok()) return record.status();
  const std::string checkpoint = CheckpointNameOf(ref->model_id, record->version());
  const records::SectionRecord* summary = nullptr;
  for (const auto& section : record->sections()) {
    if (section.name() == request.section()) summary = &section;
  }
  if (summary == nullptr) {
    return DoesNotExist("section",
                        absl::StrCat(checkpoint, "/sections/", request.section()));
  }
  // Sections follow the tensors in the manifest, so it is searched from its end.
  for (uint32_t page = record->manifest_pages(); page-- > 0;) {
    auto manifest = context.store->checkpoints().ReadManifestPage(*record, page);
    if (!manifest.ok()) return manifest.status();
    for (const auto& stored : manifest->sections()) {
      if (stored.name() != request.section()) continue;
      const auto too_large = [&] {
        return AnswerTooLarge(
            absl::StrCat("section ", request.section(), " of ", checkpoint),
            "read it by LoadCheckpoint");
      };
      // Checked before decoding, which takes several times the encoded size.
      if (stored.value().size() > static_cast<size_t>(kMaxAnswerBytes))
        return too_large();
      auto section = SectionFromRecord(stored, checkpoint);
      if (!section.ok()) return section;
      section->set_tensor_count(summary->tensor_count());
      section->set_logical_bytes(summary->logical_bytes());
      if (section->ByteSizeLong() > static_cast<size_t>(kMaxAnswerBytes))
        return too_large();
      return *std::move(section);
    }
    if (manifest->sections_size() == 0 && manifest->tensors_size() > 0) break;
  }
  // A section without a value, such as a plain state dict, may have no entry in the
  // manifest.
  return SectionFromRecord(*summary, checkpoint);
}

}  // namespace modelstore::server
