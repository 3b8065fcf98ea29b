#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/convert.h"
#include "server/core/page_filler.h"
#include "server/core/page_token.h"
#include "server/core/validation.h"
#include "server/handlers/handlers.h"

namespace modelstore::server {
namespace {

absl::Status ValidateExpected(int64_t version) {
  if (version > 0) return absl::OkStatus();
  return InvalidField("expected_version", "the number of a version, above 0");
}

}  // namespace

absl::StatusOr<v1::Alias> SetAlias(ServiceContext& context,
                                   const v1::SetAliasRequest& request) {
  auto name = ParseAliasName("name", request.name());
  if (!name.ok()) return name.status();
  if (request.version() <= 0) {
    return InvalidField("version", "the number of a version, above 0");
  }
  if (request.has_expected_version()) {
    if (auto s = ValidateExpected(request.expected_version()); !s.ok()) return s;
    if (request.create_only()) {
      return InvalidField("create_only", "not with expected_version");
    }
  }
  if (auto s = ValidateNote("note", request.note()); !s.ok()) return s;
  if (auto s = ValidateRequestId("request_id", request.request_id()); !s.ok()) return s;
  storage::Aliases::Move move;
  move.alias = name->alias;
  move.version = request.version();
  if (request.has_expected_version()) move.expected_version = request.expected_version();
  if (request.create_only()) move.expected_version = 0;  // no alias of this name
  move.note = request.note();
  move.validate_only = request.validate_only();
  move.model_uid = request.model_uid();
  move.request_id = request.request_id();
  auto alias = context.store->aliases().Set(name->model_id, move);
  if (!alias.ok()) return alias.status();
  return AliasFrom(name->model_id, *alias);
}

absl::StatusOr<google::protobuf::Empty> DeleteAlias(
    ServiceContext& context, const v1::DeleteAliasRequest& request) {
  auto name = ParseAliasName("name", request.name());
  if (!name.ok()) return name.status();
  if (request.has_expected_version()) {
    if (auto s = ValidateExpected(request.expected_version()); !s.ok()) return s;
  }
  if (auto s = ValidateNote("note", request.note()); !s.ok()) return s;
  if (auto s = ValidateRequestId("request_id", request.request_id()); !s.ok()) return s;
  // A move without a version deletes the alias.
  storage::Aliases::Move move;
  move.alias = name->alias;
  if (request.has_expected_version()) move.expected_version = request.expected_version();
  move.note = request.note();
  move.validate_only = request.validate_only();
  move.model_uid = request.model_uid();
  move.request_id = request.request_id();
  auto deleted = context.store->aliases().Set(name->model_id, move);
  if (!deleted.ok()) return deleted.status();
  return google::protobuf::Empty();
}

absl::StatusOr<v1::ListAliasesResponse> ListAliases(
    ServiceContext& context, const v1::ListAliasesRequest& request) {
  auto id = ParseModelName("parent", request.parent());
  if (!id.ok()) return id.status();
  auto limit = PageSize(request.page_size(), 100, 1000);
  if (!limit.ok()) return limit.status();
  const std::string scope = absl::StrCat("ListAliases/", *id);
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListAliasesResponse response;
  auto next = FillPage<storage::Aliases::Alias, v1::Alias>(
      *limit, [&](int n) { return context.store->aliases().List(*id, *after, n); },
      [&](const storage::Aliases::Alias& alias) { return AliasFrom(*id, alias); },
      response.mutable_aliases());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

absl::StatusOr<v1::ListAliasMovesResponse> ListAliasMoves(
    ServiceContext& context, const v1::ListAliasMovesRequest& request) {
  auto id = ParseModelName("parent", request.parent());
  if (!id.ok()) return id.status();
  if (!request.alias().empty()) {
    if (auto s = ValidateAlias("alias", request.alias()); !s.ok()) return s;
  }
  auto limit = PageSize(request.page_size(), 100, 1000);
  if (!limit.ok()) return limit.status();
  const std::string scope = absl::StrCat("ListAliasMoves/", *id, "/", request.alias());
  auto after = ReadPageToken(scope, request.page_token());
  if (!after.ok()) return after.status();
  v1::ListAliasMovesResponse response;
  auto next = FillPage<records::AliasMoveRecord, v1::AliasMove>(
      *limit,
      [&](int n) {
        return context.store->aliases().ListMoves(*id, request.alias(), *after, n);
      },
      AliasMoveFromRecord, response.mutable_moves());
  if (!next.ok()) return next.status();
  response.set_next_page_token(MakePageToken(scope, *next));
  return response;
}

}  // namespace modelstore::server
