#include "server/modify/repeat_source.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/numeric.h"

namespace modelstore::server::modify {
namespace {

// Size of the views that a visit passes on, if elements are smaller.
constexpr int64_t kBlockBytes = int64_t{64} << 10;

class Repeat final : public TensorSource {
 public:
  Repeat(std::string element, int64_t count)
      : element_(std::move(element)),
        size_bytes_(count * static_cast<int64_t>(element_.size())) {}
  int64_t size_bytes() const override { return size_bytes_; }
  int64_t read_bytes() const override { return 0; }
  int64_t working_bytes() const override {
    return kBlockBytes + static_cast<int64_t>(element_.size());
  }

 protected:
  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    const auto element = static_cast<int64_t>(element_.size());
    // Holds whole elements, and is long enough for a view that starts within one. Local
    // to the visit, because a call may make a source for each of many tensors.
    std::string block;
    const int64_t bytes = std::min(kBlockBytes, begin % element + end - begin);
    if (element < bytes) {
      block.reserve(bytes + element);
      while (static_cast<int64_t>(block.size()) < bytes) block += element_;
    }
    absl::string_view view = element_;
    if (!block.empty()) view = block;
    while (begin < end) {
      const int64_t first = begin % element;
      const int64_t count =
          std::min(end - begin, static_cast<int64_t>(view.size()) - first);
      if (auto s = take(view.substr(first, count)); !s.ok()) return s;
      begin += count;
    }
    return absl::OkStatus();
  }

 private:
  const std::string element_;
  const int64_t size_bytes_;
};

}  // namespace

absl::StatusOr<SourcePtr> RepeatSource(DType dtype, double value, int64_t count) {
  std::string element(ElementSize(dtype), '\0');
  if (CanCast(DType::kFloat64, dtype)) {
    auto s = Cast(DType::kFloat64, reinterpret_cast<const char*>(&value), dtype,
                  element.data(), 1);
    if (!s.ok()) return s;
  } else if (value != 0) {
    if (dtype > DType::kInt64 || value != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(DTypeName(dtype)), " cannot be filled with ", value));
    }
    element[0] = static_cast<char>(value);
  }
  return std::make_shared<Repeat>(std::move(element), count);
}

SourcePtr RepeatBytesSource(std::string bytes, int64_t count) {
  return std::make_shared<Repeat>(std::move(bytes), count);
}

}  // namespace modelstore::server::modify
