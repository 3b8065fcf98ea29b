// Aliases: names that move from version to version.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/storage/v1/records.pb.h"
#include "storage/api/types.h"

namespace modelstore::storage {

// Names that move from version to version.
class Aliases {
 public:
  virtual ~Aliases() = default;
  struct Alias {
    std::string alias;
    int64_t version = 0;
    records::AliasRecord record;
  };
  struct Move {
    std::string alias;
    int64_t version = 0;  // 0: deletes the alias
    // ABORTED if the alias names another one now; 0: if it exists.
    std::optional<int64_t> expected_version;
    std::string note;
    std::string mover;
    bool validate_only = false;
    // See ChangeOptions.
    std::string model_uid;
    // Identifies this move: a repeated one succeeds and changes nothing, even if the
    // alias was moved again since. Kept for the last 256 moves of the model.
    std::string request_id;
  };
  // Creates, moves or deletes an alias and adds the move to the history. If the alias
  // already names the version, nothing changes; the move is added to the history only
  // if it has a request_id.
  virtual absl::StatusOr<Alias> Set(absl::string_view model_id, const Move& move) = 0;
  // By name.
  virtual absl::StatusOr<Page<Alias>> List(absl::string_view model_id,
                                           absl::string_view after, int limit) = 0;
  // The history, newest first; of one alias unless empty.
  virtual absl::StatusOr<Page<records::AliasMoveRecord>> ListMoves(
      absl::string_view model_id, absl::string_view alias, absl::string_view after,
      int limit) = 0;
};

}  // namespace modelstore::storage
