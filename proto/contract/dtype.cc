#include "proto/contract/dtype.h"

#include <array>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace modelstore {
namespace {

struct Properties {
  std::string_view name;
  int8_t size;
  bool floating_point;
};

// Indexed by number; 0 is unused.
constexpr std::array<Properties, 21> kProperties = {{
    {"", 0, false},           {"bool", 1, false},           {"uint8", 1, false},
    {"int8", 1, false},       {"int16", 2, false},          {"int32", 4, false},
    {"int64", 8, false},      {"float16", 2, true},         {"bfloat16", 2, true},
    {"float32", 4, true},     {"float64", 8, true},         {"complex32", 4, false},
    {"complex64", 8, false},  {"complex128", 16, false},    {"uint16", 2, false},
    {"uint32", 4, false},     {"uint64", 8, false},         {"float8_e4m3fn", 1, true},
    {"float8_e5m2", 1, true}, {"float8_e4m3fnuz", 1, true}, {"float8_e5m2fnuz", 1, true},
}};

// 2^62: the sum of two such counts, and sizes in bytes, do not overflow int64.
constexpr int64_t kMaxCount = int64_t{1} << 62;
constexpr size_t kMaxDimensions = 64;

absl::StatusOr<int64_t> Multiply(int64_t a, int64_t b) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product) || product > kMaxCount) {
    return absl::InvalidArgumentError("the shape has more than 2^62 elements or bytes");
  }
  return product;
}

}  // namespace

int64_t ElementSize(DType dtype) { return kProperties[static_cast<size_t>(dtype)].size; }

bool IsFloatingPoint(DType dtype) {
  return kProperties[static_cast<size_t>(dtype)].floating_point;
}

std::string_view DTypeName(DType dtype) {
  return kProperties[static_cast<size_t>(dtype)].name;
}

absl::StatusOr<DType> DTypeFromName(std::string_view name) {
  for (size_t i = 1; i < kProperties.size(); ++i) {
    if (kProperties[i].name == name) return static_cast<DType>(i);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown dtype '", absl::string_view(name.data(), name.size()), "'"));
}

absl::StatusOr<DType> DTypeFromNumber(int number) {
  if (number < 1 || number >= static_cast<int>(kProperties.size())) {
    return absl::InvalidArgumentError(absl::StrCat("unknown dtype number ", number));
  }
  return static_cast<DType>(number);
}

absl::StatusOr<int64_t> ElementCount(absl::Span<const int64_t> shape) {
  if (shape.size() > kMaxDimensions) {
    return absl::InvalidArgumentError(absl::StrCat("the shape has ", shape.size(),
                                                   " dimensions; at most 64 are taken"));
  }
  // With an empty dimension the product is 0, but the other sizes must still be valid:
  // slices and strides are computed from them.
  int64_t count = 1;
  bool empty = false;
  for (int64_t size : shape) {
    if (size < 0) {
      return absl::InvalidArgumentError(absl::StrCat("the shape has a size of ", size));
    }
    if (size == 0) {
      empty = true;
      continue;
    }
    absl::StatusOr<int64_t> product = Multiply(count, size);
    if (!product.ok()) return product;
    count = *product;
  }
  return empty ? 0 : count;
}

absl::StatusOr<int64_t> TensorBytes(DType dtype, absl::Span<const int64_t> shape) {
  absl::StatusOr<int64_t> count = ElementCount(shape);
  if (!count.ok()) return count;
  return Multiply(*count, ElementSize(dtype));
}

}  // namespace modelstore
