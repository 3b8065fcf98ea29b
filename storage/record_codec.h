// Encodes and decodes the catalog's records.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "storage/catalog.h"

namespace modelstore::storage {

// Deterministic: equal records give equal bytes, which conditional batches compare.
template <typename Record>
std::string Encode(const Record& record) {
  return SerializeDeterministic(record);
}

// DATA_LOSS if the bytes do not parse.
template <typename Record>
absl::StatusOr<Record> Decode(absl::string_view bytes) {
  Record record;
  if (!ParseMessage(bytes, &record)) {
    return DataDamaged("record", std::string(Record::descriptor()->name()),
                       "the catalog holds a damaged one");
  }
  return record;
}

// Reads a record of Space::kRecords. Absent if there is no such key. DATA_LOSS if it is
// damaged.
template <typename Record>
absl::StatusOr<std::optional<Record>> GetRecord(Catalog& catalog, absl::string_view key) {
  absl::StatusOr<std::optional<std::string>> bytes = catalog.Get(Space::kRecords, key);
  if (!bytes.ok()) return bytes.status();
  if (!bytes->has_value()) return std::optional<Record>();
  absl::StatusOr<Record> record = Decode<Record>(**bytes);
  if (!record.ok()) return record.status();
  return std::optional<Record>(*std::move(record));
}

}  // namespace modelstore::storage
