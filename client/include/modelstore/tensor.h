// Tensors as the torch-free library sees them: descriptions, and views of memory
// that belongs to somebody else. Bytes are little-endian and row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "modelstore/device_bytes.h"
#include "proto/contract/dtype.h"

namespace modelstore {

enum class TensorRole : uint8_t { kUnspecified = 0, kParameter = 1, kBuffer = 2 };

// What is known of a tensor without its bytes.
struct TensorInfo {
  std::string section = "model";
  // In `model` the state-dict key; elsewhere the path in the section's tree.
  std::string key;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  bool requires_grad = false;
  TensorRole role = TensorRole::kUnspecified;
  // `section:key` of the tensor that holds the bytes, if this one shares them.
  std::string tied_to;
  int64_t size_bytes = 0;
};

// A tensor to save: its description and its bytes.
struct TensorView {
  TensorInfo info;
  // info.size_bytes contiguous bytes; null for a tied tensor, or with `source`. Read
  // until the save is staged (asynchronous) or done.
  const void* data = nullptr;
  // Keeps `data` alive; may be empty if the caller does.
  std::shared_ptr<const void> owner;
  // Nobody will change the bytes before the save is durable: they need not be
  // staged.
  bool immutable = false;
  // Where only a slice is saved (one worker of several): its box. Empty: whole.
  std::vector<int64_t> offset;
  std::vector<int64_t> size;
  // Instead of data, for memory that this process cannot address: read while the save
  // stages, and let go of then. Such bytes are staged whatever `immutable` says.
  std::shared_ptr<ByteSource> source;
};

// Where the bytes of a loaded tensor go.
struct WritableBuffer {
  void* data = nullptr;
  size_t size_bytes = 0;
  // Kept until the load is over.
  std::shared_ptr<void> owner;
  // Instead of data, for memory that this process cannot address. LoadPlan::Run()
  // returns when the sink has everything, which may be before the device has.
  std::shared_ptr<ByteSink> sink;
};

}  // namespace modelstore
