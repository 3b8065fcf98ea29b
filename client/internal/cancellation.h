// Cancels a transfer from another thread: wakes its sleeps and cancels its streams.
#pragma once

#include <chrono>
#include <vector>

#include "modelstore/connection.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Thread-safe.
class Cancellation {
 public:
  // Permanent. Cancels tracked streams, and every stream that is tracked later.
  void Cancel();
  bool cancelled() const;
  // False if it was cancelled before `time` has passed.
  bool Sleep(std::chrono::milliseconds time);

 private:
  friend class TrackedStream;
  mutable Mutex mutex_;
  CondVar changed_;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  std::vector<Stream*> streams_ GUARDED_BY(mutex_);
};

// Makes `stream` cancellable during the lifetime of this object. Must be destroyed before
// the stream.
class TrackedStream {
 public:
  TrackedStream(Cancellation& cancellation, Stream& stream);
  ~TrackedStream();
  TrackedStream(const TrackedStream&) = delete;
  TrackedStream& operator=(const TrackedStream&) = delete;

 private:
  Cancellation& cancellation_;
  Stream& stream_;
};

}  // namespace modelstore::internal
