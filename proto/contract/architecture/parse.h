// Parses calls in Python syntax, such as `Conv2d(3, 64, kernel_size=(3, 3))`. Independent
// of module types.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

// Limits for the size and nesting of a call.
inline constexpr size_t kMaxCallBytes = size_t{64} << 10;
inline constexpr int kMaxCallDepth = 64;

struct KeyedCall;

struct ArgumentText {
  // Empty for a positional argument.
  std::string name;
  enum class Kind : uint8_t {
    kValue,    // a number, string, tuple, ...: `value`
    kCall,     // a call: the only element of `calls`
    kCallList  // a list of calls, or a dict of calls with their keys
  };
  Kind kind = Kind::kValue;
  v1::Value value;
  std::vector<KeyedCall> calls;
};

struct CallText {
  // Without qualifiers: `Linear` for `nn.Linear`.
  std::string name;
  std::vector<ArgumentText> arguments;
};

// A call, with its key if it is an element of a dict.
struct KeyedCall {
  std::string key;
  CallText call;
};

// Parses a call with parentheses; with `bare` also a name alone. A word that is not a
// number, True, False or None is a string, quoted or not. INVALID_ARGUMENT names `field`
// and the position: "expected `,` or `)` at character 12, before `10`".
absl::StatusOr<CallText> ParseCall(absl::string_view field, absl::string_view text,
                                   bool bare = false);

}  // namespace modelstore
