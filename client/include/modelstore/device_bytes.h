// Interfaces to memory that the CPU cannot address, such as a GPU's: ByteSink is filled
// by a load, ByteSource is read by a save. client/torch implements both for torch's
// devices; a binding to another framework may implement its own.
//
// Both use page-locked host memory, so that the device copies asynchronously while the
// next bytes are received, checked or sent.
//
// Includes the standard library only, so that the device code builds where only torch is
// installed. Nothing here throws. Functions return an error as its text, and "" for
// success.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace modelstore {

// The destination of one tensor's bytes. Thread-safe.
class ByteSink {
 public:
  // Page-locked memory to receive into. Returns to its pool when the last reference to
  // `data` is dropped.
  struct Slot {
    std::shared_ptr<char> data;
    size_t size_bytes = 0;
  };

  virtual ~ByteSink() = default;
  // Returns a slot for `bytes`, at most kMaxBytes. Waits until the device has copied the
  // contents of an earlier slot if all are in use. Slot::data is null if none became free
  // before `deadline`, or if memory is short.
  virtual Slot Reserve(size_t bytes, std::chrono::steady_clock::time_point deadline) = 0;
  // Starts copying the first `bytes` of the slot to byte `offset` of the tensor, and
  // returns. The slot is not reused before the copy has completed.
  virtual std::string Deliver(Slot slot, size_t bytes, int64_t offset) = 0;

  // Largest slot: the maximum size of a chunk.
  static constexpr size_t kMaxBytes = size_t{4} << 20;
};

// The origin of one tensor's bytes. The creator of the source defines the time at which
// the values are taken. Used by one thread at a time.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Returns `bytes` of page-locked memory, or null if none is available. It is pooled for
  // the next save when the last reference is dropped.
  virtual std::shared_ptr<char> AllocateStaging(size_t bytes) = 0;
  // Starts copying bytes [offset, offset + bytes) of the tensor to `to`, and returns.
  // `to` points into `room`, which is held until the copy has completed.
  virtual std::string Begin(int64_t offset, size_t bytes, char* to,
                            std::shared_ptr<char> room) = 0;
  // Waits until all copies that were started have completed.
  virtual std::string Wait(std::chrono::steady_clock::time_point deadline) = 0;
};

}  // namespace modelstore
