// Bytes that this process cannot address, such as those in a GPU's memory: how a load
// fills them and how a save reads them. client/torch implements both for the devices
// that torch knows; a binding to another framework may bring its own.
//
// Both work through page-locked memory on this side, from and to which a device copies
// by itself, while the next bytes are received, checked or sent.
//
// Includes nothing but the standard library, so that the device code builds where only
// torch is installed. Nothing here throws; an error is its text, no error is "".
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace modelstore {

// Where the bytes of one tensor go. Thread-safe.
class ByteSink {
 public:
  // Page-locked memory to receive into. Dropped undelivered, it is free again.
  struct Slot {
    std::shared_ptr<char> data;
    size_t size_bytes = 0;
  };

  virtual ~ByteSink() = default;
  // A slot for `bytes`, at most kMaxBytes. Waits for one that the device has copied
  // from. Without data: none came free until `deadline`, or memory is short.
  virtual Slot Reserve(size_t bytes, std::chrono::steady_clock::time_point deadline) = 0;
  // Begins to copy the slot's first `bytes` to `offset` of the tensor and returns. The
  // slot is not used again before the copy is over.
  virtual std::string Deliver(Slot slot, size_t bytes, int64_t offset) = 0;

  static constexpr size_t kMaxBytes = size_t{4} << 20;
};

// Where the bytes of one tensor come from: its values at the time that the maker of the
// source tells. Used by one thread at a time.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Page-locked memory, null if there is none. Kept for the next save once dropped.
  virtual std::shared_ptr<char> AllocateStaging(size_t bytes) = 0;
  // Begins to copy [offset, offset + bytes) to `to`, which lies in `room`, and returns.
  virtual std::string Begin(int64_t offset, size_t bytes, char* to,
                            std::shared_ptr<char> room) = 0;
  // Waits for everything that was begun.
  virtual std::string Wait(std::chrono::steady_clock::time_point deadline) = 0;
};

}  // namespace modelstore
