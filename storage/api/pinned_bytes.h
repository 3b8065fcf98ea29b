// Bytes that are read without a copy.
#pragma once

#include <memory>
#include <utility>

#include "absl/strings/string_view.h"

namespace modelstore::storage {

// A view of bytes with shared ownership of the memory that holds them. The view is valid
// for the lifetime of this object. Move-only; moving is cheap.
class PinnedBytes {
 public:
  PinnedBytes() = default;
  PinnedBytes(absl::string_view view, std::shared_ptr<void> owner)
      : view_(view), owner_(std::move(owner)) {}
  PinnedBytes(PinnedBytes&&) noexcept = default;
  PinnedBytes& operator=(PinnedBytes&&) noexcept = default;

  absl::string_view view() const { return view_; }

 private:
  absl::string_view view_;
  std::shared_ptr<void> owner_;
};

}  // namespace modelstore::storage
