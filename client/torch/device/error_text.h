// Converts exceptions of torch to text at the boundary of client/torch/device.
#pragma once

#include <torch/torch.h>

#include <exception>
#include <string>
#include <utility>

namespace modelstore::device {

// Runs `work`. Returns "" for success, or "<doing>: <first line of the exception>".
template <typename Work>
std::string ErrorTextOf(const char* doing, Work&& work) {
  try {
    std::forward<Work>(work)();
    return "";
  } catch (const c10::Error& error) {
    const std::string why = error.what_without_backtrace();
    return std::string(doing) + ": " + why.substr(0, why.find('\n'));
  } catch (const std::exception& error) {
    return std::string(doing) + ": " + error.what();
  }
}

}  // namespace modelstore::device
