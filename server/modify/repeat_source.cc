#include "server/modify/repeat_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/numeric.h"

namespace modelstore::server::modify {
namespace {

// A multiple of every element size.
constexpr int64_t kBlockBytes = int64_t{64} << 10;

class Repeat final : public TensorSource {
 public:
  Repeat(const std::string& element, int64_t count)
      : size_bytes_(count * static_cast<int64_t>(element.size())) {
    const int64_t bytes = std::min(kBlockBytes, size_bytes_);
    block_.reserve(bytes);
    while (static_cast<int64_t>(block_.size()) < bytes) block_ += element;
  }
  int64_t size_bytes() const override { return size_bytes_; }
  int64_t read_bytes() const override { return 0; }
  absl::Status Visit(int64_t begin, int64_t end, Taker take) const override {
    while (begin < end) {
      const int64_t count = std::min(end - begin, static_cast<int64_t>(block_.size()));
      auto s = take(absl::string_view(block_.data(), count));
      if (!s.ok()) return s;
      begin += count;
    }
    return absl::OkStatus();
  }

 private:
  const int64_t size_bytes_;
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
  return std::make_shared<Repeat>(element, count);
}

}  // namespace modelstore::server::modify
