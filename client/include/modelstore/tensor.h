// Tensors of the torch-free library: descriptions, and views of memory that the caller
// owns. Bytes are little-endian, in row-major order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "modelstore/device_bytes.h"
#include "proto/contract/dtype.h"

namespace modelstore {

// What a tensor is to its module. kUnspecified: neither, such as optimizer state.
enum class TensorRole : uint8_t { kUnspecified = 0, kParameter = 1, kBuffer = 2 };

// Description of a tensor, without its bytes.
struct TensorInfo {
  std::string section = "model";
  // In section `model` the state-dict key, such as `fc.weight`. In other sections the
  // path in the tree of values, such as `state/0/exp_avg`.
  std::string key;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  bool requires_grad = false;
  TensorRole role = TensorRole::kUnspecified;
  // If this tensor shares the memory of another one: `section:key` of that tensor, which
  // holds the bytes. Empty otherwise.
  std::string tied_to;
  // Length of the data: of the box if a TensorView has one, and of the delivered rows in
  // the delivered dtype in a LoadPlan.
  int64_t size_bytes = 0;
};

// A tensor to save: its description and its bytes.
struct TensorView {
  TensorInfo info;
  // info.size_bytes contiguous bytes: the tensor, or its box. Null for a tied tensor, or
  // if `source` is set. They are read until SaveHandle::Staged(), or, if `immutable`,
  // until the save ends.
  const void* data = nullptr;
  // Keeps `data` alive. May be null if the caller keeps it alive.
  std::shared_ptr<const void> owner;
  // The bytes do not change before the save is durable, so they are not staged.
  bool immutable = false;
  // The box that `data` holds, if this worker saves only a slice of the tensor: start and
  // length in each dimension. Empty: the whole tensor.
  std::vector<int64_t> offset;
  std::vector<int64_t> size;
  // Replaces `data` for memory that the CPU cannot address. Read and released while the
  // save stages; `immutable` has no effect.
  std::shared_ptr<ByteSource> source;
};

// Destination of one tensor of a load.
struct WritableBuffer {
  void* data = nullptr;
  size_t size_bytes = 0;
  // Keeps `data` alive; held until the load ends. May be null.
  std::shared_ptr<void> owner;
  // Replaces `data` for memory that the CPU cannot address. LoadPlan::Run() returns when
  // the sink has received all bytes; copies to the device may still be in progress.
  std::shared_ptr<ByteSink> sink;
};

}  // namespace modelstore
