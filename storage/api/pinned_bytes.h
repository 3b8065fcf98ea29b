// Bytes that are read without a copy.
#pragma once

#include <memory>
#include <utility>

#include "absl/strings/string_view.h"

namespace modelstore::storage {

// Bytes held in place by whatever owns them. Move-only, cheap.
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
