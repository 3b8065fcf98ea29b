// Converts exceptions of torch to a status. No exception leaves client/torch.
#pragma once

#include <torch/torch.h>

#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace modelstore::torch_internal {

// RESOURCE_EXHAUSTED if memory ran out, UNIMPLEMENTED if torch lacks the operation,
// otherwise INTERNAL; with the first line of torch's message.
absl::Status StatusFromTorch(std::string_view doing, const c10::Error& error);

// Runs `work`, which returns absl::Status or absl::StatusOr<T>, and returns its result or
// the exception as a status. Messages start with `doing`, such as "reading the module".
template <typename Work>
auto Guarded(std::string_view doing, Work&& work) -> std::invoke_result_t<Work> {
  const absl::string_view where(doing.data(), doing.size());
  try {
    return std::forward<Work>(work)();
  } catch (const c10::Error& error) {
    return StatusFromTorch(doing, error);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(absl::StrCat(where, ": out of memory"));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(where, ": ", error.what()));
  }
}

}  // namespace modelstore::torch_internal
