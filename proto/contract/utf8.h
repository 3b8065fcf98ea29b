// UTF-8 checks, as protobuf's `string` requires it. Names and messages of clients may be
// any bytes.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace modelstore {

// Length of the sequence at the start of `text`, which must not be empty: 1 to 4, or 0 if
// it is malformed (overlong, a surrogate, above U+10FFFF, truncated).
size_t Utf8SequenceLength(absl::string_view text);

bool IsUtf8(absl::string_view text);

// Returns `text` with each byte that is in no valid sequence replaced by `?`, truncated
// between sequences to at most `max_bytes`.
std::string ToUtf8(absl::string_view text, size_t max_bytes);

}  // namespace modelstore
