#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/page_filler.h"
#include "server/core/page_token.h"
#include "server/core/resource_names.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

constexpr absl::Duration kShortestLease = absl::Seconds(1);
// A longer hold must be renewed, so that the lease of a lost holder ends.
constexpr absl::Duration kLongestLease = absl::Hours(24 * 30);

}  // namespace

absl::StatusOr<v1::Lease> AcquireLease(ServiceContext& context,
                                       const v1::AcquireLeaseRequest& request) {
  auto ref = ParseCheckpointRef("checkpoint", request.checkpoint());
  if (!ref.ok()) return ref.status();
  if (auto s = ValidateHolder("holder", request.holder()); !s.ok()) return s;
  const absl::Duration time_to_live = ToDuration(request.time_to_live());
  if (time_to_live < kShortestLease || time_to_live > kLongestLease) {
    return InvalidField("time_to_live", "from 1 s to 30 days");
  }
  auto lease = context.store->leases().Acquire(
      ref->model_id, ref->version, request.holder(), time_to_live, request.model_uid());
  if (!lease.ok()) return lease.status();
  return LeaseFrom(ref->model_id, *lease);
}

absl::StatusOr<google::protobuf::Empty> ReleaseLease(
    ServiceContext& context, const v1::ReleaseLeaseRequest& request) {
  auto name = ParseLeaseName("name", request.name());
  if (!name.ok()) return name.status();
  auto status = context.store->leases().Release(name->model_id, name->version,
                                                name->holder, request.model_uid());
  if (!status.ok()) return status;
  return google::protobuf::Empty();
}

absl::StatusOr<v1::ListLeasesResponse> ListLeases(ServiceContext& context,
                                                  const v1::ListLeasesRequest& request) {
  // The parent is a model or a checkpoint.
  std::string model_id;
  std::optional<storage::VersionName> version;
  if (auto model = ParseModelName("parent", request.parent()); model.ok()) {
    model_id = *std::move(model);
  } else {
    auto ref = ParseCheckpointRef("parent", request.parent());
    if (!ref.ok()) return ref.status();
    model_id = ref->model_id;
    version = ref->version;
  }
  auto limit = PageSize(request.page_size(), 100, 1000);
  if (!limit.ok()) return limit.status();
  const std::string scope = absl::StrCat("ListLeases/", request.parent());
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListLeasesResponse response;
  auto next = FillPage<storage::Leases::Lease, v1::Lease>(
      *limit,
      [&](int n) { return context.store->leases().List(model_id, version, *after, n); },
      [&](const storage::Leases::Lease& lease) { return LeaseFrom(model_id, lease); },
      response.mutable_leases());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

}  // namespace modelstore::server
