// Listing: the result of a list call. An absl::StatusOr of a vector that is safe in a
// range-based for loop:
//
//   for (const auto& c : *client.ListCheckpoints("models/iris")) ...
//
// With a plain absl::StatusOr the loop would read freed memory, because `*` returns a
// reference into a temporary that is destroyed before the first iteration. Here `*` and
// value() of a temporary return the vector by value, and the loop extends its lifetime.
// As with absl::StatusOr, `*` terminates the process if the call failed: check ok() first
// where it may fail.
#pragma once

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace modelstore {

template <typename T>
class [[nodiscard]] Listing : public absl::StatusOr<std::vector<T>> {
  using Base = absl::StatusOr<std::vector<T>>;

 public:
  // NOLINTBEGIN(google-explicit-constructor): as absl::StatusOr is made.
  Listing(absl::Status status) : Base(std::move(status)) {}
  Listing(std::vector<T> items) : Base(std::move(items)) {}
  // NOLINTEND(google-explicit-constructor)

  const std::vector<T>& operator*() const& { return Base::operator*(); }
  std::vector<T>& operator*() & { return Base::operator*(); }
  std::vector<T> operator*() && { return std::move(Base::operator*()); }
  std::vector<T> operator*() const&& { return Base::operator*(); }

  const std::vector<T>& value() const& { return Base::value(); }
  std::vector<T>& value() & { return Base::value(); }
  std::vector<T> value() && { return std::move(Base::value()); }
  std::vector<T> value() const&& { return Base::value(); }
};

}  // namespace modelstore
