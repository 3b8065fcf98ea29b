// Fills a page of a list with as many entries as fit in one response.
#pragma once

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"
#include "proto/contract/limits.h"
#include "storage/api/types.h"

namespace modelstore::server {

// Maximum size of a page's entries. The rest of a response is for the page token.
inline constexpr size_t kPageBytes = static_cast<size_t>(kMaxAnswerBytes) - 65536;

// Fetches up to `limit` records, converts each and stores them in `out`. Returns the
// position after the last one, which is empty at the end of the list. Only storage can
// make a position, so if fewer records than fetched fit, the page is fetched again with
// their number as the limit. An entry larger than a page is returned alone.
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
      bytes += message.ByteSizeLong() + 8;  // tag and length
      if (bytes > kPageBytes && !out->empty()) break;
      *out->Add() = std::move(message);
    }
    if (out->size() == static_cast<int>(page->items.size())) return page->next;
    limit = out->size();
  }
}

}  // namespace modelstore::server
