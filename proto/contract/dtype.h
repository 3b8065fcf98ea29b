// Element types of tensors: names, sizes, kinds. The numbers are those of
// modelstore.v1.DType; they are stored. Installed with the client library.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace modelstore {

enum class DType : uint8_t {
  kBool = 1,
  kUint8 = 2,
  kInt8 = 3,
  kInt16 = 4,
  kInt32 = 5,
  kInt64 = 6,
  kFloat16 = 7,
  kBfloat16 = 8,
  kFloat32 = 9,
  kFloat64 = 10,
  kComplex32 = 11,
  kComplex64 = 12,
  kComplex128 = 13,
  kUint16 = 14,
  kUint32 = 15,
  kUint64 = 16,
  kFloat8E4m3fn = 17,
  kFloat8E5m2 = 18,
  kFloat8E4m3fnuz = 19,
  kFloat8E5m2fnuz = 20,
};

// Bytes of one element: 1 to 16.
int64_t ElementSize(DType dtype);

// float16, bfloat16, float32, float64 and the float8 types; not complex.
bool IsFloatingPoint(DType dtype);

// PyTorch's name without `torch.`, such as `float32`.
std::string_view DTypeName(DType dtype);

// InvalidArgument for an unknown name or number.
absl::StatusOr<DType> DTypeFromName(std::string_view name);
absl::StatusOr<DType> DTypeFromNumber(int number);

// Product of the sizes; 1 for a 0-dim shape. InvalidArgument for a negative
// size, over 64 dimensions, or a product beyond 2^62.
absl::StatusOr<int64_t> ElementCount(absl::Span<const int64_t> shape);

// ElementCount() times ElementSize(), with the same checks.
absl::StatusOr<int64_t> TensorBytes(DType dtype, absl::Span<const int64_t> shape);

}  // namespace modelstore
