// Ends a transfer from outside: wakes its sleeps and cancels its streams.
#pragma once

#include <chrono>
#include <vector>

#include "modelstore/connection.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Thread-safe.
class Cancellation {
 public:
  // For good. Streams that are tracked, and those that will be, are cancelled.
  void Cancel();
  bool cancelled() const;
  // False if cancelled before the time was over.
  bool Sleep(std::chrono::milliseconds time);

 private:
  friend class TrackedStream;
  mutable Mutex mutex_;
  CondVar changed_;
  bool cancelled_ GUARDED_BY(mutex_) = false;
  std::vector<Stream*> streams_ GUARDED_BY(mutex_);
};

// Makes a stream cancellable for as long as this object lives.
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
