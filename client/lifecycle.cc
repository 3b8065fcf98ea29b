#include "modelstore/lifecycle.h"

#include <algorithm>

#include "client/internal/convert.h"
#include "client/internal/request_id.h"
#include "client/internal/rpc.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/names.h"

namespace modelstore {

using internal::CallDeadline;
using internal::CallDelete;
using internal::CallStore;

namespace {

// Page size of lists: the server's maximum.
constexpr int kPage = 1000;

AliasInfo ToAliasInfo(const v1::Alias& alias) {
  return {alias.name(), alias.version(), alias.note(),
          internal::ToTime(alias.update_time())};
}

// Returns the uid of a model. Changes are identified by it, so that a retry does not
// change another model that was created with the same name in the meantime.
absl::StatusOr<std::string> UidOf(const Client& client, absl::string_view model_id,
                                  Deadline deadline) {
  v1::GetModelRequest request;
  request.set_name(ModelName(model_id));
  auto model = CallStore<v1::Model>(client, "GetModel", request, deadline);
  if (!model.ok()) return model.status();
  return model->uid();
}

template <typename Name>
absl::StatusOr<std::string> UidOf(const Client& client, const absl::StatusOr<Name>& name,
                                  Deadline deadline) {
  return name.ok() ? UidOf(client, name->model_id, deadline) : name.status();
}

LeaseInfo ToLeaseInfo(const v1::Lease& lease) {
  return {lease.name(), lease.checkpoint(), lease.holder(),
          internal::ToTime(lease.expire_time()), internal::ToTime(lease.create_time())};
}

}  // namespace

absl::StatusOr<AliasInfo> SetAlias(const Client& client, std::string_view name,
                                   int64_t version, const SetAliasOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::SetAliasRequest request;
  request.set_name(std::string(name));
  const auto uid = UidOf(client, ParseAliasName("name", request.name()), deadline);
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  request.set_version(version);
  if (options.expected_version) request.set_expected_version(*options.expected_version);
  request.set_create_only(options.create_only);
  request.set_note(options.note);
  // A retry with the same id does not add a second entry to the history.
  request.set_request_id(internal::NewRequestId("alias"));
  auto alias = CallStore<v1::Alias>(client, "SetAlias", request, deadline);
  if (!alias.ok()) return alias.status();
  return ToAliasInfo(*alias);
}

absl::Status DeleteAlias(const Client& client, std::string_view name,
                         const DeleteAliasOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::DeleteAliasRequest request;
  request.set_name(std::string(name));
  const auto uid = UidOf(client, ParseAliasName("name", request.name()), deadline);
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  if (options.expected_version) request.set_expected_version(*options.expected_version);
  request.set_note(options.note);
  request.set_request_id(internal::NewRequestId("alias"));
  return CallDelete<google::protobuf::Empty>(client, "DeleteAlias", request, deadline);
}

Listing<AliasInfo> ListAliases(const Client& client, std::string_view parent,
                               const CallOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::ListAliasesRequest request;
  request.set_parent(std::string(parent));
  request.set_page_size(kPage);
  std::vector<AliasInfo> aliases;
  while (true) {
    auto page =
        CallStore<v1::ListAliasesResponse>(client, "ListAliases", request, deadline);
    if (!page.ok()) return page.status();
    for (const auto& alias : page->aliases()) aliases.push_back(ToAliasInfo(alias));
    if (page->next_page_token().empty()) return aliases;
    request.set_page_token(page->next_page_token());
  }
}

Listing<AliasMove> ListAliasMoves(const Client& client, std::string_view parent,
                                  const ListAliasMovesOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::ListAliasMovesRequest request;
  request.set_parent(std::string(parent));
  request.set_alias(options.alias);
  std::vector<AliasMove> moves;
  while (true) {
    const int left =
        options.limit > 0 ? options.limit - static_cast<int>(moves.size()) : kPage;
    request.set_page_size(std::min(left, kPage));
    auto page = CallStore<v1::ListAliasMovesResponse>(client, "ListAliasMoves", request,
                                                      deadline);
    if (!page.ok()) return page.status();
    for (const auto& move : page->moves()) moves.push_back(internal::ToAliasMove(move));
    const bool enough =
        options.limit > 0 && static_cast<int>(moves.size()) >= options.limit;
    if (enough || page->next_page_token().empty()) return moves;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<LeaseInfo> AcquireLease(const Client& client, std::string_view checkpoint,
                                       std::string_view holder, Timeout time_to_live,
                                       const CallOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::AcquireLeaseRequest request;
  request.set_checkpoint(std::string(checkpoint));
  const auto uid =
      UidOf(client, ParseCheckpointName("checkpoint", request.checkpoint()), deadline);
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  request.set_holder(std::string(holder));
  *request.mutable_time_to_live() = internal::ToDuration(time_to_live);
  auto lease = CallStore<v1::Lease>(client, "AcquireLease", request, deadline);
  if (!lease.ok()) return lease.status();
  return ToLeaseInfo(*lease);
}

absl::Status ReleaseLease(const Client& client, std::string_view name,
                          const CallOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::ReleaseLeaseRequest request;
  request.set_name(std::string(name));
  const auto uid = UidOf(client, ParseLeaseName("name", request.name()), deadline);
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  return CallDelete<google::protobuf::Empty>(client, "ReleaseLease", request, deadline);
}

Listing<LeaseInfo> ListLeases(const Client& client, std::string_view parent,
                              const CallOptions& options) {
  const Deadline deadline = CallDeadline(client, options.deadline);
  v1::ListLeasesRequest request;
  request.set_parent(std::string(parent));
  request.set_page_size(kPage);
  std::vector<LeaseInfo> leases;
  while (true) {
    auto page =
        CallStore<v1::ListLeasesResponse>(client, "ListLeases", request, deadline);
    if (!page.ok()) return page.status();
    for (const v1::Lease& lease : page->leases()) leases.push_back(ToLeaseInfo(lease));
    if (page->next_page_token().empty()) return leases;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<CheckpointInfo> CopyCheckpoint(const Client& client,
                                              std::string_view source,
                                              std::string_view parent,
                                              const CopyOptions& options) {
  v1::CopyCheckpointRequest request;
  request.set_name(std::string(source));
  request.set_parent(std::string(parent));
  request.set_create_model(options.create_model);
  internal::ToMetadata(options.metadata, request.mutable_checkpoint());
  request.set_request_id(options.request_id.empty() ? internal::NewRequestId("copy")
                                                    : options.request_id);
  internal::SetExpectedLatest(options, &request);
  auto copy = CallStore<v1::Checkpoint>(client, "CopyCheckpoint", request,
                                        CallDeadline(client, options.deadline));
  if (!copy.ok()) return copy.status();
  return internal::ToCheckpointInfo(*copy);
}

}  // namespace modelstore
