#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "storage/keys.h"
#include "storage/model_change.h"
#include "storage/parts.h"
#include "storage/record_codec.h"
#include "storage/resolve.h"
#include "storage/status_macros.h"

namespace modelstore::storage {
namespace {

// Bounds the model's record, which has the aliases and is written by every commit.
constexpr int kMaxAliases = 1000;
// Number of latest moves that are searched for the request_id of a repeated request.
constexpr int kRememberedMoves = 256;
// Moves read for one page of an alias's history, which may therefore be short: bounds the
// work for an alias that rarely moves.
constexpr int kScannedMoves = 10'000;

std::string Named(int64_t version) {
  return version == 0 ? std::string("nothing") : absl::StrCat("version ", version);
}

// The version that an alias names is in the model's record, so that resolving a name and
// checking for holders read one record. Note and time are in a row of their own, the
// history in one row for each move.
class StoredAliases final : public Aliases {
 public:
  explicit StoredAliases(StoreCore* core) : core_(*core) {}

  absl::StatusOr<Alias> Set(absl::string_view model_id, const Move& move) override;
  absl::StatusOr<Page<Alias>> List(absl::string_view model_id, absl::string_view after,
                                   int limit) override;
  absl::StatusOr<Page<v1::AliasMoveRecord>> ListMoves(absl::string_view model_id,
                                                      absl::string_view alias,
                                                      absl::string_view after,
                                                      int limit) override;

 private:
  // Note and time of an alias; empty if it does not exist.
  absl::StatusOr<v1::AliasRecord> Record(const v1::ModelRecord& model,
                                         absl::string_view alias) {
    ASSIGN_OR_RETURN(
        const std::optional<v1::AliasRecord> record,
        GetRecord<v1::AliasRecord>(core_.catalog(), keys::Alias(model.uid(), alias)));
    return record.value_or(v1::AliasRecord());
  }
  // Returns the move with the request's id if it is among the last kRememberedMoves.
  // INVALID_ARGUMENT if that was another move.
  absl::StatusOr<std::optional<v1::AliasMoveRecord>> Earlier(
      const Move& move, const v1::ModelRecord& model);
  // Fills in the change and the answer. Called for each attempt of ChangeModel().
  absl::Status Plan(const Move& move, ModelChange& change, Alias& answer);
  // Fills in the answer of a call that changes nothing: the alias as it is.
  absl::Status Answer(const Move& move, ModelChange& change, Alias& answer);

  StoreCore& core_;
};

absl::StatusOr<std::optional<v1::AliasMoveRecord>> StoredAliases::Earlier(
    const Move& move, const v1::ModelRecord& model) {
  std::optional<v1::AliasMoveRecord> earlier;
  if (move.request_id.empty()) return earlier;
  KeyRange range = PrefixRange(keys::AliasMoves(model.uid()));
  range.reverse = true;
  int scanned = 0;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, range, [&](absl::string_view, absl::string_view value) {
        absl::StatusOr<v1::AliasMoveRecord> made = Decode<v1::AliasMoveRecord>(value);
        if (made.ok() && made->request_id() == move.request_id) {
          earlier = *std::move(made);
        }
        return !earlier.has_value() && ++scanned < kRememberedMoves;
      }));
  if (earlier.has_value() &&
      (earlier->alias() != move.alias || earlier->to_version() != move.version)) {
    return RequestIdReused(move.request_id, "another move");
  }
  return earlier;
}

absl::Status StoredAliases::Answer(const Move& move, ModelChange& change, Alias& answer) {
  change.skip = true;
  const auto present = change.model.aliases().find(move.alias);
  ASSIGN_OR_RETURN(v1::AliasRecord record, Record(change.model, move.alias));
  answer = {move.alias, present == change.model.aliases().end() ? 0 : present->second,
            std::move(record)};
  return absl::OkStatus();
}

absl::Status StoredAliases::Plan(const Move& move, ModelChange& change, Alias& answer) {
  v1::ModelRecord& model = change.model;
  RETURN_IF_ERROR(CheckUid(model, move.model_uid));
  // Checked first: a request whose answer was lost succeeds again, even if others have
  // moved the alias since, and moves it only once.
  ASSIGN_OR_RETURN(const std::optional<v1::AliasMoveRecord> earlier,
                   Earlier(move, model));
  if (earlier.has_value()) return Answer(move, change, answer);
  const auto present = model.aliases().find(move.alias);
  const int64_t from = present == model.aliases().end() ? 0 : present->second;
  if (move.version == 0 && from == 0) {
    return DoesNotExist("alias", AliasNameOf(model.model_id(), move.alias));
  }
  // Refused even if it already names `version`: of two callers that make the same move,
  // one must learn that the other made it.
  if (move.expected_version.has_value() && *move.expected_version != from) {
    const std::string alias = AliasNameOf(model.model_id(), move.alias);
    return LostRace(alias, *move.expected_version, from,
                    absl::StrCat(alias, " names ", Named(from), ", expected was ",
                                 Named(*move.expected_version)));
  }
  // With a request_id the move is added to the history even if it changes nothing: a
  // repetition must be recognized, and must not undo later moves of others.
  const bool stays = from == move.version;
  if (stays && move.request_id.empty()) return Answer(move, change, answer);
  const std::string alias_key = keys::Alias(model.uid(), move.alias);
  if (stays) {
    RETURN_IF_ERROR(Answer(move, change, answer));
  } else if (move.version == 0) {
    model.mutable_aliases()->erase(move.alias);
    change.batch.Delete(Space::kRecords, alias_key);
  } else {
    RETURN_IF_ERROR(GetVersion(core_, model, move.version).status());
    if (from == 0 && model.aliases_size() >= kMaxAliases) {
      return OverLimit("aliases", kMaxAliases,
                       absl::StrCat(ModelName(model.model_id()), " has ", kMaxAliases,
                                    " aliases: delete some that nobody uses"));
    }
    (*model.mutable_aliases())[move.alias] = move.version;
    answer = {move.alias, move.version, {}};
    answer.record.set_note(move.note);
    answer.record.set_update_time_us(core_.NowUs());
    change.batch.Put(Space::kRecords, alias_key, Encode(answer.record));
  }
  v1::AliasMoveRecord& entry = *change.event.emplace().mutable_alias_moved();
  entry.set_alias(move.alias);
  entry.set_from_version(from);
  entry.set_to_version(move.version);
  entry.set_move_time_us(core_.NowUs());
  entry.set_note(move.note);
  entry.set_mover(move.mover);
  entry.set_request_id(move.request_id);
  change.batch.Put(Space::kRecords, keys::AliasMove(model.uid(), model.generation() + 1),
                   Encode(entry));
  change.skip = move.validate_only;
  return absl::OkStatus();
}

absl::StatusOr<Aliases::Alias> StoredAliases::Set(absl::string_view model_id,
                                                  const Move& move) {
  Alias answer;
  // A deletion must work on a full disk: it allows the deletion of the version that the
  // alias named.
  const StoreCore::Room room =
      move.version == 0 ? StoreCore::Room::kFreesSpace : StoreCore::Room::kNormalWrite;
  RETURN_IF_ERROR(ChangeModel(core_, model_id, room, [&](ModelChange& change) {
                    return Plan(move, change, answer);
                  }).status());
  return answer;
}

absl::StatusOr<Page<Aliases::Alias>> StoredAliases::List(absl::string_view model_id,
                                                         absl::string_view after,
                                                         int limit) {
  ASSIGN_OR_RETURN(const v1::ModelRecord model, GetModel(core_, model_id));
  std::vector<std::string> names;
  for (const auto& [alias, version] : model.aliases()) {
    if (alias > after) names.push_back(alias);
  }
  std::sort(names.begin(), names.end());
  Page<Alias> page;
  if (names.size() > static_cast<size_t>(limit)) {
    names.resize(limit);
    page.next = names.back();
  }
  for (std::string& name : names) {
    ASSIGN_OR_RETURN(v1::AliasRecord record, Record(model, name));
    const int64_t version = model.aliases().at(name);
    page.items.push_back({std::move(name), version, std::move(record)});
  }
  return page;
}

absl::StatusOr<Page<v1::AliasMoveRecord>> StoredAliases::ListMoves(
    absl::string_view model_id, absl::string_view alias, absl::string_view after,
    int limit) {
  ASSIGN_OR_RETURN(const v1::ModelRecord model, GetModel(core_, model_id));
  KeyRange range = PrefixRange(keys::AliasMoves(model.uid()));
  range.reverse = true;
  if (!after.empty()) {
    uint64_t last = 0;
    if (!absl::SimpleAtoi(after, &last)) {
      return InvalidField("page_token", "is not one that was given out");
    }
    // A position is the generation of the last move that was looked at; the scan is
    // backwards.
    range.end = keys::AliasMove(model.uid(), last);
  }
  Page<v1::AliasMoveRecord> page;
  uint64_t generation = 0;
  int scanned = 0;
  absl::Status status;
  RETURN_IF_ERROR(core_.catalog().Scan(
      Space::kRecords, range, [&](absl::string_view key, absl::string_view value) {
        absl::StatusOr<v1::AliasMoveRecord> move = Decode<v1::AliasMoveRecord>(value);
        if (!move.ok()) {
          status = move.status();
          return false;
        }
        const bool wanted = alias.empty() || move->alias() == alias;
        if (scanned == kScannedMoves ||
            (wanted && page.items.size() == static_cast<size_t>(limit))) {
          page.next = absl::StrCat(generation);
          return false;
        }
        ++scanned;
        generation = keys::GenerationOf(key);
        if (wanted) page.items.push_back(*std::move(move));
        return true;
      }));
  RETURN_IF_ERROR(status);
  return page;
}

}  // namespace

std::unique_ptr<Aliases> MakeAliases(StoreCore* core) {
  return std::make_unique<StoredAliases>(core);
}

}  // namespace modelstore::storage
