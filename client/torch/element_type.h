// Converts between torch's element types and DType.
#pragma once

#include <torch/torch.h>

#include "absl/status/statusor.h"
#include "proto/contract/dtype.h"

// LibTorch has uint16 to uint64 and the four types of float8 since 2.3.
#define MODELSTORE_TORCH_HAS_FLOAT8 \
  (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 3))

namespace modelstore::torch_internal {

// INVALID_ARGUMENT for quantized types, naming the type.
absl::StatusOr<DType> DTypeFromTorch(torch::ScalarType type);

// UNIMPLEMENTED for types that this LibTorch lacks.
absl::StatusOr<torch::ScalarType> DTypeToTorch(DType dtype);

// Returns a shape as text: `[2, 3]`.
std::string ShapeText(absl::Span<const int64_t> shape);

}  // namespace modelstore::torch_internal
