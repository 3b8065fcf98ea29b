#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/checkpoint_filter.h"
#include "server/core/convert.h"
#include "server/core/page_filler.h"
#include "server/core/page_token.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

// Bound of the records that a call reads: a filtered page ends after this many, possibly
// with fewer entries than requested, and a model with more versions cannot be sorted.
constexpr int kMaxScanned = 10'000;
// Records read from storage at once.
constexpr int kPageSize = 50;

// Reads pages of the versions of one model by filter and order.
class Lister {
 public:
  Lister(ServiceContext& context, records::ModelRecord model, CheckpointFilter filter,
         CheckpointOrder order)
      : context_(context),
        model_(std::move(model)),
        filter_(std::move(filter)),
        order_(std::move(order)) {}

  // Returns the page after position `after`. The meaning of a position depends on the
  // order: see Filtered() and Sorted().
  absl::StatusOr<storage::Page<records::CheckpointRecord>> Fetch(const std::string& after,
                                                                 int limit) {
    if (!order_.figure && filter_.empty()) {
      return context_.store->checkpoints().List(model_.model_id(), order_.descending,
                                                after, limit);
    }
    return order_.figure ? Sorted(after, limit) : Filtered(after, limit);
  }

 private:
  // By version. A position is the version of the last record that was examined, as in
  // storage's own list.
  absl::StatusOr<storage::Page<records::CheckpointRecord>> Filtered(std::string after,
                                                                    int limit) {
    storage::Page<records::CheckpointRecord> page;
    for (int scanned = 0; scanned < kMaxScanned;) {
      auto some = context_.store->checkpoints().List(model_.model_id(), order_.descending,
                                                     after, kPageSize);
      if (!some.ok()) return some.status();
      for (auto& record : some->items) {
        if (page.items.size() == static_cast<size_t>(limit)) {
          page.next = absl::StrCat(page.items.back().version());
          return page;
        }
        if (filter_.Takes(record)) page.items.push_back(std::move(record));
      }
      scanned += static_cast<int>(some->items.size());
      page.next = after = some->next;
      if (after.empty()) break;
    }
    return page;
  }

  // By the figure, then by version in the same direction. Versions without the figure are
  // last. A position is the number of entries before it, so if versions are created or
  // deleted between two pages, entries may be repeated or missed. Each page reads and
  // sorts all versions again, and keeps only their sort keys in memory.
  absl::StatusOr<storage::Page<records::CheckpointRecord>> Sorted(
      const std::string& after, int limit) {
    if (model_.checkpoint_count() > kMaxScanned) {
      return absl::OutOfRangeError(absl::StrCat(
          "order_by: ", ModelName(model_.model_id()), " has ", model_.checkpoint_count(),
          " versions; up to ", kMaxScanned, " can be ordered by anything but `version`"));
    }
    size_t begin = 0;
    if (!after.empty() && !absl::SimpleAtoi(after, &begin)) {
      return InvalidField("page_token", "is not one that was given out");
    }
    // Sort key. `key` and `version` are negated for a descending order; `lacks` is not.
    struct Place {
      bool lacks = false;
      long double key = 0;
      int64_t version = 0;
      bool operator<(const Place& other) const {
        return std::tie(lacks, key, version) <
               std::tie(other.lacks, other.key, other.version);
      }
    };
    std::vector<Place> places;
    std::string position;
    do {
      auto some = context_.store->checkpoints().List(model_.model_id(), false, position,
                                                     kPageSize);
      if (!some.ok()) return some.status();
      const long double sign = order_.descending ? -1 : 1;
      for (const auto& record : some->items) {
        if (!filter_.Takes(record)) continue;
        const std::optional<long double> value = order_.figure->Of(record);
        places.push_back({!value.has_value(), sign * value.value_or(0),
                          order_.descending ? -record.version() : record.version()});
      }
      position = some->next;
    } while (!position.empty());
    std::sort(places.begin(), places.end());

    storage::Page<records::CheckpointRecord> page;
    size_t at = begin;
    for (; at < places.size() && page.items.size() < static_cast<size_t>(limit); ++at) {
      auto record = context_.store->checkpoints().Get(model_.model_id(),
                                                      std::abs(places[at].version));
      if (absl::IsNotFound(record.status())) continue;  // deleted meanwhile
      if (!record.ok()) return record.status();
      // As in storage's own list, because each may have megabytes.
      record->mutable_metadata()->clear_architecture();
      record->mutable_metadata()->clear_edits();
      page.items.push_back(*std::move(record));
    }
    if (at < places.size()) page.next = absl::StrCat(at);
    return page;
  }

  ServiceContext& context_;
  const records::ModelRecord model_;
  const CheckpointFilter filter_;
  const CheckpointOrder order_;
};

}  // namespace

absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(
    ServiceContext& context, const v1::ListCheckpointsRequest& request) {
  auto id = ParseModelName("parent", request.parent());
  if (!id.ok()) return id.status();
  auto limit = PageSize(request.page_size(), 50, 1000);
  if (!limit.ok()) return limit.status();
  auto filter = CheckpointFilter::Parse(request.filter());
  if (!filter.ok()) return filter.status();
  auto order = ParseOrder(request.order_by());
  if (!order.ok()) return order.status();
  auto model = context.store->models().Get(*id);
  if (!model.ok()) return model.status();
  const std::string scope = absl::StrCat("ListCheckpoints/", model->uid(), "/",
                                         request.order_by(), "/", request.filter());
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  Lister lister(context, *model, *std::move(filter), *std::move(order));
  v1::ListCheckpointsResponse response;
  auto next = FillPage<records::CheckpointRecord, v1::Checkpoint>(
      *limit, [&](int n) { return lister.Fetch(*after, n); },
      [&](const records::CheckpointRecord& record) {
        return CheckpointFromRecord(*model, record);
      },
      response.mutable_checkpoints());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

}  // namespace modelstore::server
