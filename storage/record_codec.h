// Records to bytes and back.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "storage/catalog.h"

namespace modelstore::storage {

// Equal records give equal bytes: maps are written in key order. Compare-and-set
// and digests of content rest on it.
template <typename Record>
std::string Encode(const Record& record) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    record.SerializeWithCachedSizes(((void)record.ByteSizeLong(), &coded));
  }
  return bytes;
}

// DATA_LOSS if the bytes are no such record.
template <typename Record>
absl::StatusOr<Record> Decode(absl::string_view bytes) {
  Record record;
  if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError(
        absl::StrCat("the catalog holds a damaged ", Record::descriptor()->name()));
  }
  return record;
}

// Absent if there is no such key.
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
