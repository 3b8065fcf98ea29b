// Queries the free memory of a GPU without CUDA's headers.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

namespace modelstore::device {

// Returns free and total bytes of GPU `device`; nullopt if they cannot be queried. With
// LibTorch 2.9 and later, memory that torch's allocator reserved and does not use counts
// as free.
std::optional<std::pair<int64_t, int64_t>> CudaMemory(int device);

}  // namespace modelstore::device
