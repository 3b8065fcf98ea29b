#include "modelstore/modify.h"

#include <utility>

#include "client/internal/convert.h"
#include "client/internal/operation.h"
#include "client/internal/request_id.h"
#include "client/internal/rpc.h"
#include "google/protobuf/util/json_util.h"
#include "modelstore/v1/model_store.pb.h"
#include "modelstore/v1/operations.pb.h"
#include "proto/contract/message_codec.h"

namespace modelstore {
namespace {

using Response = v1::ModifyCheckpointResponse;
using Kind = ModifyResult::Warning::Kind;
using Fate = ModifyResult::Parameter::Fate;
using OptimizerFate = ModifyResult::Parameter::OptimizerFate;

// Fails to compile if the protocol gains a value that an enum lacks.
static_assert(static_cast<int>(Kind::kTensorsNotTaken) == Response::Warning::Kind_MAX);
static_assert(static_cast<int>(Fate::kRemoved) == Response::ParameterFate::Fate_MAX);
static_assert(static_cast<int>(OptimizerFate::kStateDropped) ==
              Response::ParameterFate::OptimizerFate_MAX);

// The request_id is chosen here, once per call: retries send the same request.
absl::StatusOr<v1::ModifyCheckpointRequest> MakeRequest(std::string_view name,
                                                        const EditList& edits,
                                                        const ModifyOptions& options) {
  v1::ModifyCheckpointRequest request;
  request.set_name(std::string(name));
  if (!edits.error().empty()) return absl::InvalidArgumentError(edits.error());
  for (const std::string& encoded : edits.encoded()) {
    if (!ParseMessage(encoded, request.add_edits())) {
      return absl::InternalError("an edit is malformed");
    }
  }
  internal::ToMetadata(options.metadata, request.mutable_checkpoint());
  request.set_optimizer_policy(static_cast<v1::ModifyCheckpointRequest::OptimizerPolicy>(
      options.optimizer_policy));
  for (const auto& [section, names] : options.optimizer_param_names) {
    auto& given = (*request.mutable_optimizer_param_names())[section];
    given.mutable_names()->Add(names.begin(), names.end());
  }
  request.set_request_id(options.request_id.empty() ? internal::NewRequestId("modify")
                                                    : options.request_id);
  if (options.expected_latest_version.has_value()) {
    request.set_expected_latest_version(*options.expected_latest_version);
  }
  request.set_validate_only(options.validate_only);
  return request;
}

void Add(const Response::Report& report, ModifyResult& result) {
  for (const auto& warning : report.warnings()) {
    ModifyResult::Warning out;
    out.kind = internal::ToKnown(warning.kind(), Kind::kTensorsNotTaken);
    if (warning.has_edit_index()) out.edit_index = warning.edit_index();
    out.path = warning.path();
    out.message = warning.message();
    result.warnings.push_back(std::move(out));
  }
  for (const auto& fate : report.parameters()) {
    ModifyResult::Parameter parameter;
    parameter.key = fate.key();
    parameter.old_key = fate.old_key();
    parameter.fate = internal::ToKnown(fate.fate(), Fate::kRemoved);
    parameter.optimizer_fate =
        internal::ToKnown(fate.optimizer_fate(), OptimizerFate::kStateDropped);
    if (fate.has_optimizer_group()) parameter.optimizer_group = fate.optimizer_group();
    parameter.optimizer = fate.optimizer();
    result.parameters.push_back(std::move(parameter));
  }
}

void Add(const Response::Result& from, ModifyResult& result) {
  result.checkpoint = internal::ToCheckpointInfo(from.checkpoint());
  result.architecture_before = from.architecture_before();
  result.architecture_after = from.architecture_after();
  result.new_tensor_bytes = from.new_tensor_bytes();
  result.stored_bytes = from.stored_bytes();
  result.omitted.assign(from.omitted().begin(), from.omitted().end());
}

void CopyProgress(const Response::Progress& from, ModifyProgress* progress) {
  if (progress == nullptr) return;
  progress->edit_index = from.edit_index();
  progress->done_bytes = from.done_bytes();
  progress->total_bytes = from.total_bytes();
}

}  // namespace

std::string_view ToString(ModifyResult::Warning::Kind kind) {
  return internal::WithoutPrefix(Response::Warning::Kind_Name(static_cast<int>(kind)),
                                 "KIND_");
}
std::string_view ToString(ModifyResult::Parameter::Fate fate) {
  return internal::WithoutPrefix(
      Response::ParameterFate::Fate_Name(static_cast<int>(fate)), "FATE_");
}
std::string_view ToString(ModifyResult::Parameter::OptimizerFate fate) {
  return internal::WithoutPrefix(
      Response::ParameterFate::OptimizerFate_Name(static_cast<int>(fate)),
      "OPTIMIZER_FATE_");
}

absl::StatusOr<ModifyResult> ModifyCheckpoint(const Client& client, std::string_view name,
                                              const EditList& edits,
                                              const ModifyOptions& options) {
  auto connection = client.connection();
  if (!connection.ok()) return connection.status();
  auto request = MakeRequest(name, edits, options);
  if (!request.ok()) return request.status();
  return internal::RunOperation<Response, ModifyResult>(
      **connection, "ModifyCheckpoint", *request,
      internal::TransferDeadline(options.deadline),
      [&](const Response& response, ModifyResult& result) {
        if (response.has_progress())
          CopyProgress(response.progress(), options.progress.get());
        if (response.has_report()) Add(response.report(), result);
        if (response.has_result()) Add(response.result(), result);
      });
}

Listing<HistoryEntry> History(const Client& client, std::string_view name,
                              const HistoryOptions& options) {
  const Deadline deadline = internal::CallDeadline(client, options.deadline);
  google::protobuf::util::JsonPrintOptions as_typed;
  as_typed.preserve_proto_field_names = true;
  std::vector<HistoryEntry> history;
  v1::GetCheckpointRequest request;
  request.set_name(std::string(name));
  request.set_view(v1::CHECKPOINT_VIEW_FULL);
  // Follows the base of each version until it has none or the base was deleted. A base
  // whose name now belongs to another model (another uid) counts as deleted.
  std::string uid;
  while (!request.name().empty() && static_cast<int>(history.size()) < options.limit) {
    auto checkpoint =
        internal::CallStore<v1::Checkpoint>(client, "GetCheckpoint", request, deadline);
    const bool gone = absl::IsNotFound(checkpoint.status()) ||
                      (checkpoint.ok() && !uid.empty() && checkpoint->model_uid() != uid);
    if (gone && !history.empty()) break;
    if (!checkpoint.ok()) return checkpoint.status();
    HistoryEntry entry;
    entry.checkpoint = internal::ToCheckpointInfo(*checkpoint);
    for (const v1::Edit& edit : checkpoint->edits()) {
      std::string json;
      const auto s = google::protobuf::util::MessageToJsonString(edit, &json, as_typed);
      if (!s.ok()) return absl::InternalError("an edit cannot be printed");
      entry.edits.push_back(std::move(json));
    }
    history.push_back(std::move(entry));
    request.set_name(checkpoint->base_checkpoint());
    uid = checkpoint->base_model_uid();
  }
  return history;
}

}  // namespace modelstore
