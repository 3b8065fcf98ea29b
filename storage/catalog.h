// The first of the two interfaces an engine implements, for small data: an ordered map
// from keys to values with atomic, conditional, durable batches.
//
// Contract, held by every engine and checked by the conformance suite:
//   - A batch applies whole or not at all, also across a crash.
//   - After Write(kDurable) returned OK the batch, and every batch written
//     before it, outlives power loss.
//   - A Write that failed before anything was applied says so with its code
//     (ABORTED: an expectation differs; RESOURCE_EXHAUSTED: no space). A Write
//     with unknown outcome returns UNAVAILABLE and IsUndecided() is true of its
//     status; every call then returns UNAVAILABLE until Reopen(), after which a
//     read shows whether it was applied.
//   - Reads see every batch that returned OK.
// Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace modelstore::storage {

// Independent key spaces of a catalog.
enum class Space : uint8_t {
  kRecords = 0,    // models, versions, uploads, pack uses, ...
  kManifests = 1,  // pages of manifests
  kChunks = 2,     // chunks of small saves
};

enum class Durability : uint8_t {
  kBuffered,  // may be lost by power loss until the next durable write
  kDurable,
};

// An atomic set of changes with conditions.
class CatalogBatch {
 public:
  struct Change {
    Space space;
    std::string key;
    std::optional<std::string> value;  // absent: delete
  };
  struct Expectation {
    Space space;
    std::string key;
    std::optional<std::string> value;  // absent: the key must not exist
  };

  void Put(Space space, std::string key, std::string value) {
    changes_.push_back({space, std::move(key), std::move(value)});
  }
  void Delete(Space space, std::string key) {
    changes_.push_back({space, std::move(key), std::nullopt});
  }
  // The batch is applied only if `key` has exactly `value` at that moment; otherwise
  // Write() returns ABORTED.
  void Expect(Space space, std::string key, std::optional<std::string> value) {
    expectations_.push_back({space, std::move(key), std::move(value)});
  }

  const std::vector<Change>& changes() const { return changes_; }
  const std::vector<Expectation>& expectations() const { return expectations_; }
  bool empty() const { return changes_.empty(); }

 private:
  std::vector<Change> changes_;
  std::vector<Expectation> expectations_;
};

// Keys in [begin, end); an empty end means no end.
struct KeyRange {
  std::string begin;
  std::string end;
  bool reverse = false;
};

// The range of all keys that start with `prefix`.
KeyRange PrefixRange(absl::string_view prefix);

// See the contract at the top of the file.
class Catalog {
 public:
  virtual ~Catalog() = default;

  // Absent if there is no such key.
  virtual absl::StatusOr<std::optional<std::string>> Get(Space space,
                                                         absl::string_view key) = 0;

  // Visits the entries of a range in key order (descending if `reverse`), in one
  // consistent state, until `visit` returns false. The views are valid only during the
  // call of `visit`. DATA_LOSS if stored entries are damaged.
  virtual absl::Status Scan(
      Space space, const KeyRange& range,
      absl::FunctionRef<bool(absl::string_view key, absl::string_view value)> visit) = 0;

  // See the contract above. Checks the expectations and applies the changes atomically.
  virtual absl::Status Write(const CatalogBatch& batch, Durability durability) = 0;

  // OK, or why the catalog answers UNAVAILABLE and needs Reopen().
  virtual absl::Status Health() = 0;

  // Closes after a fault and opens again; running scans end with UNAVAILABLE.
  virtual absl::Status Reopen() = 0;
};

// True for the status of a Write whose outcome is unknown until Reopen().
bool IsUndecided(const absl::Status& status);
// UNAVAILABLE with that mark.
absl::Status UndecidedError(absl::string_view message);

}  // namespace modelstore::storage
