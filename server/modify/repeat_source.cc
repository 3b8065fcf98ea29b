#include "server/modify/repeat_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/numeric.h"

namespace modelstore::server::modify {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 10;

class Repeat final : public TensorSource {
 public:
  Repeat(std::string element, int64_t count)
      : element_bytes_(static_cast<int64_t>(element.size())),
        size_bytes_(count * element_bytes_),
        block_(std::move(element)) {
    const int64_t bytes = std::min(kBlockBytes, size_bytes_);
    if (static_cast<int64_t>(block_.size()) >= bytes) return;
    const std::string once = block_;
    block_.reserve(bytes + element_bytes_);
    while (static_cast<int64_t>(block_.size()) < bytes) block_ += once;
  }
  int64_t size_bytes() const override { return size_bytes_; }
  int64_t read_bytes() const override { return 0; }

 protected:
  absl::Status DoVisit(int64_t begin, int64_t end, Taker take) const override {
    while (begin < end) {
      const int64_t first = begin % element_bytes_;
      const int64_t count =
          std::min(end - begin, static_cast<int64_t>(block_.size()) - first);
      auto s = take(absl::string_view(block_.data() + first, count));
      if (!s.ok()) return s;
      begin += count;
    }
    return absl::OkStatus();
  }

 private:
  const int64_t element_bytes_;
  const int64_t size_bytes_;
  // Whole elements.
  std::string block_;
};

}  // namespace

absl::StatusOr<SourcePtr> RepeatSource(DType dtype, double value, int64_t count) {
  std::string element(ElementSize(dtype), '\0');
  if (CanCast(DType::kFloat64, dtype)) {
    auto s = Cast(DType::kFloat64, reinterpret_cast<const char*>(&value), dtype,
                  element.data(), 1);
    if (!s.ok()) return s;
  } else if (value != 0) {
    if (dtype > DType::kInt64 || value < 0 || value > 1) {
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
