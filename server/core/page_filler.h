// Pages of a list that fit in one answer.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"
#include "proto/contract/limits.h"
#include "storage/api/types.h"

namespace modelstore::server {

// Of the 4 MiB of an answer, left for lengths, tags and the page token.
inline constexpr size_t kPageBytes = static_cast<size_t>(kMaxAnswerBytes) - 65536;

// Fetches up to `limit` records and appends each, as `convert` makes it, to
// `out`. Positions are storage's own, so where fewer fit in an answer the page
// is fetched again with their number. Returns the position to go on from.
template <typename Record, typename Message>
absl::StatusOr<std::string> FillPage(
    int limit, absl::FunctionRef<absl::StatusOr<storage::Page<Record>>(int limit)> fetch,
    absl::FunctionRef<Message(const Record& record)> convert,
    google::protobuf::RepeatedPtrField<Message>* out) {
  for (;;) {
    auto page = fetch(limit);
    if (!page.ok()) return page.status();
    out->Clear();
    size_t bytes = 0;
    for (const Record& record : page->items) {
      Message message = convert(record);
      bytes += message.ByteSizeLong() + 8;
      if (bytes > kPageBytes && !out->empty()) break;
      *out->Add() = std::move(message);
    }
    if (out->size() == static_cast<int>(page->items.size())) return page->next;
    limit = out->size();
  }
}

}  // namespace modelstore::server
