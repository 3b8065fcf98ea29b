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

// Creates, moves, deletes and lists aliases. A version that an alias names cannot be
// deleted. Thread-safe.
class Aliases {
 public:
  virtual ~Aliases() = default;
  struct Alias {
    std::string alias;
    int64_t version = 0;
    records::AliasRecord record;
  };
  // One change of an alias.
  struct Move {
    std::string alias;
    int64_t version = 0;  // 0: deletes the alias
    // ABORTED unless the alias names this version now; 0: unless it does not exist.
    std::optional<int64_t> expected_version;
    // Free text and the caller's identity, for the history.
    std::string note;
    std::string mover;
    bool validate_only = false;
    // See ChangeOptions::model_uid.
    std::string model_uid;
    // Identifies this move; may be empty. A repeated move succeeds and changes nothing,
    // even if the alias was moved again since. Kept for the last 256 moves of the model.
    std::string request_id;
  };
  // Creates, moves or deletes an alias and adds the move to the history, in one batch. If
  // the alias already names the version, the move is added to the history only if it has
  // a request_id. Returns the alias as it is afterwards (version 0: it does not exist).
  // NOT_FOUND for the model, the version, or an alias to be deleted; RESOURCE_EXHAUSTED
  // for a new alias of a model with 1000.
  virtual absl::StatusOr<Alias> Set(absl::string_view model_id, const Move& move) = 0;
  // Lists the aliases of a model in the order of their names, from behind the alias
  // `after` on.
  virtual absl::StatusOr<Page<Alias>> List(absl::string_view model_id,
                                           absl::string_view after, int limit) = 0;
  // Lists the history, newest first; of all aliases if `alias` is empty. A page looks at
  // up to 10,000 moves, so that it may be short, or empty, with a `next`.
  virtual absl::StatusOr<Page<records::AliasMoveRecord>> ListMoves(
      absl::string_view model_id, absl::string_view alias, absl::string_view after,
      int limit) = 0;
};

}  // namespace modelstore::storage
