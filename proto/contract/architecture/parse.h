// Reads calls as Python writes them, `Conv2d(3, 64, kernel_size=(3, 3))`, into
// their parts. Knows no module type.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

// What a caller may type, and how deep it may nest.
inline constexpr size_t kMaxCallBytes = size_t{64} << 10;
inline constexpr int kMaxCallDepth = 64;

struct KeyedCall;

struct ArgumentText {
  // Empty: given by position.
  std::string name;
  enum class Kind : uint8_t {
    kValue,    // a number, string, tuple, ...: `value`
    kCall,     // a call: the one of `calls`
    kCallList  // calls in brackets, or in braces under their keys
  };
  Kind kind = Kind::kValue;
  v1::Value value;
  std::vector<KeyedCall> calls;
};

struct CallText {
  // Without the modules before it: `nn.Linear` is `Linear`.
  std::string name;
  std::vector<ArgumentText> arguments;
};

// One of a list or dict of calls; alone or in a list it has no key.
struct KeyedCall {
  std::string key;
  CallText call;
};

// A call with parentheses, or a bare name where `bare`. A word that is no number,
// True, False or None is a string, with or without quotes. INVALID_ARGUMENT names
// `field` and the place: "expected `,` or `)` at character 12, before `10`".
absl::StatusOr<CallText> ParseCall(absl::string_view field, absl::string_view text,
                                   bool bare = false);

}  // namespace modelstore
