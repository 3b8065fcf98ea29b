#include "client/torch/guard.h"

namespace modelstore::torch_internal {

absl::Status StatusFromTorch(std::string_view doing, const c10::Error& error) {
  const std::string words = error.what_without_backtrace();
  const std::string message =
      absl::StrCat(absl::string_view(doing.data(), doing.size()), ": ",
                   absl::string_view(words).substr(0, words.find('\n')));
  // The CPU allocator throws a plain Error, which only its message distinguishes.
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
      words.find("can't allocate memory") != std::string::npos ||
      words.find("not enough memory") != std::string::npos) {
    return absl::ResourceExhaustedError(message);
  }
  if (dynamic_cast<const c10::NotImplementedError*>(&error) != nullptr) {
    return absl::UnimplementedError(message);
  }
  return absl::InternalError(message);
}

}  // namespace modelstore::torch_internal
