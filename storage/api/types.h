// What several parts of the store's interface share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "modelstore/storage/v1/records.pb.h"

namespace modelstore::storage {

namespace records = ::modelstore::storage::v1;

// A version as named by a client: its number, an alias or, with neither, the
// latest.
struct VersionName {
  VersionName() = default;
  VersionName(std::optional<int64_t> given) : number(given) {}  // NOLINT(*-explicit-*)
  VersionName(int64_t given) : number(given) {}                 // NOLINT(*-explicit-*)
  static VersionName Alias(std::string alias) {
    VersionName name;
    name.alias = std::move(alias);
    return name;
  }

  std::optional<int64_t> number;
  std::string alias;
};

template <typename T>
struct Page {
  std::vector<T> items;
  // Position to go on from; empty on the last page.
  std::string next;
};

struct Freed {
  int64_t freed_bytes = 0;    // gone from the disk
  int64_t waiting_bytes = 0;  // dead, waiting for readers, the grace time, or
                              // the rest of their pack
};

// Conditions and mode of a change.
struct ChangeOptions {
  // NOT_FOUND if the model of this name has another uid: it was deleted and created
  // again. Empty: any uid.
  std::string model_uid;
  // ABORTED if the resource's generation is another.
  std::optional<uint64_t> generation;
  // Validates and returns the result without changing anything.
  bool validate_only = false;
};

}  // namespace modelstore::storage
