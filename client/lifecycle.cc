#include "modelstore/lifecycle.h"

#include <algorithm>

#include "client/internal/convert.h"
#include "client/internal/request_id.h"
#include "client/internal/rpc.h"
#include "google/protobuf/empty.pb.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/names.h"

namespace modelstore {

using internal::CallDelete;
using internal::CallStore;

namespace {

constexpr int kPage = 1000;

AliasInfo ToAliasInfo(const v1::Alias& alias) {
  return {alias.name(), alias.version(), alias.note(),
          internal::ToTime(alias.update_time())};
}

// The uid of the model that a change is meant for, asked before its first attempt: a
// repetition changes no other model that has the name meanwhile.
absl::StatusOr<std::string> UidOf(const Client& client, absl::string_view model_id) {
  v1::GetModelRequest request;
  request.set_name(ModelName(model_id));
  auto model = CallStore<v1::Model>(client, "GetModel", request);
  if (!model.ok()) return model.status();
  return model->uid();
}

template <typename Name>
absl::StatusOr<std::string> UidOf(const Client& client,
                                  const absl::StatusOr<Name>& name) {
  return name.ok() ? UidOf(client, name->model_id) : name.status();
}

LeaseInfo ToLeaseInfo(const v1::Lease& lease) {
  return {lease.checkpoint(), lease.holder(), internal::ToTime(lease.expire_time()),
          internal::ToTime(lease.create_time())};
}

}  // namespace

absl::StatusOr<AliasInfo> SetAlias(Client& client, std::string_view name, int64_t version,
                                   const SetAliasOptions& options) {
  v1::SetAliasRequest request;
  request.set_name(std::string(name));
  const auto uid = UidOf(client, ParseAliasName("name", request.name()));
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  request.set_version(version);
  if (options.expected_version) request.set_expected_version(*options.expected_version);
  request.set_note(options.note);
  request.set_request_id(internal::NewRequestId("alias"));
  auto alias = CallStore<v1::Alias>(client, "SetAlias", request);
  if (!alias.ok()) return alias.status();
  return ToAliasInfo(*alias);
}

absl::Status DeleteAlias(Client& client, std::string_view name,
                         const SetAliasOptions& options) {
  v1::DeleteAliasRequest request;
  request.set_name(std::string(name));
  const auto uid = UidOf(client, ParseAliasName("name", request.name()));
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  if (options.expected_version) request.set_expected_version(*options.expected_version);
  request.set_note(options.note);
  request.set_request_id(internal::NewRequestId("alias"));
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  return CallDelete<google::protobuf::Empty>(**connection, "DeleteAlias", request);
}

Listing<AliasInfo> ListAliases(Client& client, std::string_view parent) {
  v1::ListAliasesRequest request;
  request.set_parent(std::string(parent));
  request.set_page_size(kPage);
  std::vector<AliasInfo> aliases;
  while (true) {
    auto page = CallStore<v1::ListAliasesResponse>(client, "ListAliases", request);
    if (!page.ok()) return page.status();
    for (const auto& alias : page->aliases()) aliases.push_back(ToAliasInfo(alias));
    if (page->next_page_token().empty()) return aliases;
    request.set_page_token(page->next_page_token());
  }
}

Listing<AliasMove> ListAliasMoves(Client& client, std::string_view parent,
                                  std::string_view alias, int limit) {
  v1::ListAliasMovesRequest request;
  request.set_parent(std::string(parent));
  request.set_alias(std::string(alias));
  std::vector<AliasMove> moves;
  while (true) {
    const int left = limit > 0 ? limit - static_cast<int>(moves.size()) : kPage;
    request.set_page_size(std::min(left, kPage));
    auto page = CallStore<v1::ListAliasMovesResponse>(client, "ListAliasMoves", request);
    if (!page.ok()) return page.status();
    for (const auto& move : page->moves()) moves.push_back(internal::ToAliasMove(move));
    const bool enough = limit > 0 && static_cast<int>(moves.size()) >= limit;
    if (enough || page->next_page_token().empty()) return moves;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<LeaseInfo> AcquireLease(Client& client, std::string_view checkpoint,
                                       std::string_view holder, Timeout time_to_live) {
  v1::AcquireLeaseRequest request;
  request.set_checkpoint(std::string(checkpoint));
  const auto uid = UidOf(client, ParseCheckpointName("checkpoint", request.checkpoint()));
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  request.set_holder(std::string(holder));
  request.mutable_time_to_live()->set_seconds(time_to_live.count() / 1000);
  request.mutable_time_to_live()->set_nanos(
      static_cast<int32_t>(time_to_live.count() % 1000 * 1'000'000));
  auto lease = CallStore<v1::Lease>(client, "AcquireLease", request);
  if (!lease.ok()) return lease.status();
  return ToLeaseInfo(*lease);
}

absl::Status ReleaseLease(Client& client, std::string_view checkpoint,
                          std::string_view holder) {
  v1::ReleaseLeaseRequest request;
  request.set_checkpoint(std::string(checkpoint));
  const auto uid = UidOf(client, ParseCheckpointName("checkpoint", request.checkpoint()));
  if (!uid.ok()) return uid.status();
  request.set_model_uid(*uid);
  request.set_holder(std::string(holder));
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  return CallDelete<google::protobuf::Empty>(**connection, "ReleaseLease", request);
}

Listing<LeaseInfo> ListLeases(Client& client, std::string_view parent) {
  v1::ListLeasesRequest request;
  request.set_parent(std::string(parent));
  request.set_page_size(kPage);
  std::vector<LeaseInfo> leases;
  while (true) {
    auto page = CallStore<v1::ListLeasesResponse>(client, "ListLeases", request);
    if (!page.ok()) return page.status();
    for (const v1::Lease& lease : page->leases()) leases.push_back(ToLeaseInfo(lease));
    if (page->next_page_token().empty()) return leases;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<CheckpointInfo> UpdateCheckpoint(Client& client, std::string_view name,
                                                const CheckpointUpdate& update) {
  v1::UpdateCheckpointRequest request;
  v1::Checkpoint& checkpoint = *request.mutable_checkpoint();
  auto& mask = *request.mutable_update_mask();
  // By its number and the model's uid: a repetition changes what the first attempt did.
  v1::GetCheckpointRequest get;
  get.set_name(std::string(name));
  get.set_view(v1::BASIC);
  const auto present = CallStore<v1::Checkpoint>(client, "GetCheckpoint", get);
  if (!present.ok()) return present.status();
  checkpoint.set_name(present->name());
  checkpoint.set_model_uid(present->model_uid());
  if (update.description) {
    checkpoint.set_description(*update.description);
    mask.add_paths("description");
  }
  if (update.labels) {
    checkpoint.mutable_labels()->insert(update.labels->begin(), update.labels->end());
    mask.add_paths("labels");
  }
  if (update.pinned) {
    checkpoint.set_pinned(*update.pinned);
    mask.add_paths("pinned");
  }
  if (update.expire_time) {
    if (*update.expire_time != kNeverExpires) {
      *checkpoint.mutable_expire_time() = internal::ToTimestamp(*update.expire_time);
    }
    mask.add_paths("expire_time");
  }
  auto changed = CallStore<v1::Checkpoint>(client, "UpdateCheckpoint", request);
  if (!changed.ok()) return changed.status();
  return internal::ToCheckpointInfo(*changed);
}

absl::StatusOr<ModelInfo> UpdateModel(Client& client, std::string_view name,
                                      const ModelUpdate& update) {
  v1::UpdateModelRequest request;
  v1::Model& model = *request.mutable_model();
  model.set_name(std::string(name));
  const absl::StatusOr<std::string> id = ParseModelName("model.name", model.name());
  const auto uid = id.ok() ? UidOf(client, *id) : id;
  if (!uid.ok()) return uid.status();
  model.set_uid(*uid);
  if (update.description) {
    model.set_description(*update.description);
    request.mutable_update_mask()->add_paths("description");
  }
  if (update.labels) {
    model.mutable_labels()->insert(update.labels->begin(), update.labels->end());
    request.mutable_update_mask()->add_paths("labels");
  }
  auto changed = CallStore<v1::Model>(client, "UpdateModel", request);
  if (!changed.ok()) return changed.status();
  return internal::ToModelInfo(*changed);
}

absl::StatusOr<CheckpointInfo> CopyCheckpoint(Client& client, std::string_view source,
                                              std::string_view parent,
                                              const CopyOptions& options) {
  v1::CopyCheckpointRequest request;
  request.set_name(std::string(source));
  request.set_parent(std::string(parent));
  request.set_create_model(options.create_model);
  request.mutable_labels()->insert(options.labels.begin(), options.labels.end());
  request.set_description(options.description);
  request.set_request_id(options.request_id.empty() ? internal::NewRequestId("copy")
                                                    : options.request_id);
  if (options.expected_latest_version) {
    request.set_expected_latest_version(*options.expected_latest_version);
  }
  auto copy = CallStore<v1::Checkpoint>(client, "CopyCheckpoint", request);
  if (!copy.ok()) return copy.status();
  return internal::ToCheckpointInfo(*copy);
}

}  // namespace modelstore
