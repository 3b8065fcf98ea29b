// UTF-8, as protobuf's `string` requires it: a client's names and messages may be
// any bytes.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace modelstore {

// Length of the sequence at the front of `text`, which is not empty: 1 to 4, or
// 0 if it is malformed (overlong, a surrogate, beyond U+10FFFF, cut short).
size_t Utf8SequenceLength(absl::string_view text);

bool IsUtf8(absl::string_view text);

// `text` with each byte that belongs to no sequence replaced by `?`, and at most
// max_bytes long, cut between sequences.
std::string ToUtf8(absl::string_view text, size_t max_bytes);

}  // namespace modelstore
