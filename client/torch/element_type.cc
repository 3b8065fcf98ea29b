#include "client/torch/element_type.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace modelstore::torch_internal {
namespace {

// All types that both sides have. Quantized types are absent, so they are refused.
constexpr std::pair<torch::ScalarType, DType> kTypes[] = {
    {torch::kBool, DType::kBool},
    {torch::kByte, DType::kUint8},
    {torch::kChar, DType::kInt8},
    {torch::kShort, DType::kInt16},
    {torch::kInt, DType::kInt32},
    {torch::kLong, DType::kInt64},
    {torch::kHalf, DType::kFloat16},
    {torch::kBFloat16, DType::kBfloat16},
    {torch::kFloat, DType::kFloat32},
    {torch::kDouble, DType::kFloat64},
    {c10::ScalarType::ComplexHalf, DType::kComplex32},
    {c10::ScalarType::ComplexFloat, DType::kComplex64},
    {c10::ScalarType::ComplexDouble, DType::kComplex128},
#if MODELSTORE_TORCH_HAS_FLOAT8
    {c10::ScalarType::UInt16, DType::kUint16},
    {c10::ScalarType::UInt32, DType::kUint32},
    {c10::ScalarType::UInt64, DType::kUint64},
    {c10::ScalarType::Float8_e4m3fn, DType::kFloat8E4m3fn},
    {c10::ScalarType::Float8_e5m2, DType::kFloat8E5m2},
    {c10::ScalarType::Float8_e4m3fnuz, DType::kFloat8E4m3fnuz},
    {c10::ScalarType::Float8_e5m2fnuz, DType::kFloat8E5m2fnuz},
#endif
};

}  // namespace

absl::StatusOr<DType> DTypeFromTorch(torch::ScalarType type) {
  for (const auto& [theirs, ours] : kTypes) {
    if (theirs == type) return ours;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("element type ", c10::toString(type), " cannot be stored"));
}

absl::StatusOr<torch::ScalarType> DTypeToTorch(DType dtype) {
  for (const auto& [theirs, ours] : kTypes) {
    if (ours == dtype) return theirs;
  }
  const std::string_view name = DTypeName(dtype);
  return absl::UnimplementedError(
      absl::StrCat("LibTorch ", TORCH_VERSION, " has no ",
                   absl::string_view(name.data(), name.size())));
}

std::string ShapeText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace modelstore::torch_internal
