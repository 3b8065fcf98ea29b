// Types that several parts of the store's interface share.
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

// One page of a list.
template <typename T>
struct Page {
  std::vector<T> items;
  // Pass it as `after` for the next page; empty on the last page. Opaque.
  std::string next;
};

// Bytes freed by a deletion.
struct Freed {
  int64_t freed_bytes = 0;    // gone from the disk
  int64_t waiting_bytes = 0;  // dead, waiting for readers, the grace time, or
                              // the rest of their pack
};

// Conditions and mode of a change.
struct ChangeOptions {
  // NOT_FOUND unless the model has this uid: a model that was deleted and created again
  // has another. Empty: any uid.
  std::string model_uid;
  // ABORTED unless the resource has this generation.
  std::optional<uint64_t> generation;
  // Validates and returns the result without changing anything.
  bool validate_only = false;
};

}  // namespace modelstore::storage
