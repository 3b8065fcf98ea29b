// Macros that return from a function on an error. RETURN_IF_ERROR evaluates an
// absl::Status; ASSIGN_OR_RETURN assigns the value of an absl::StatusOr, and `target` may
// declare a variable. It expands to several statements, so it needs braces as the body of
// an if or a loop.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define MODELSTORE_CONCAT_INNER(a, b) a##b
#define MODELSTORE_CONCAT(a, b) MODELSTORE_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                           \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_IMPL(MODELSTORE_CONCAT(result_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_IMPL(result, target, expression) \
  auto result = (expression);                             \
  if (!result.ok()) return std::move(result).status();    \
  target = *std::move(result)
