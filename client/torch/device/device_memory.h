// How much of a GPU's memory is free, without CUDA's headers.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

namespace modelstore::device {

// Free and total bytes of GPU `device`. Absent if the driver cannot be asked. Memory
// that torch's allocator holds and does not use counts as free where this LibTorch
// tells how much that is (2.9 and later).
std::optional<std::pair<int64_t, int64_t>> CudaMemory(int device);

}  // namespace modelstore::device
