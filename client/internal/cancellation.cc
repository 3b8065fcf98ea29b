#include "client/internal/cancellation.h"

#include <algorithm>

namespace modelstore::internal {

void Cancellation::Cancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  // Under the lock: ~TrackedStream() takes it, so no stream is destroyed meanwhile.
  for (Stream* stream : streams_) stream->Cancel();
  changed_.NotifyAll();
}

bool Cancellation::cancelled() const {
  MutexLock lock(mutex_);
  return cancelled_;
}

bool Cancellation::Sleep(std::chrono::milliseconds time) {
  MutexLock lock(mutex_);
  return !changed_.WaitFor(mutex_, absl::FromChrono(time),
                           [this]() REQUIRES(mutex_) { return cancelled_; });
}

TrackedStream::TrackedStream(Cancellation& cancellation, Stream& stream)
    : cancellation_(cancellation), stream_(stream) {
  MutexLock lock(cancellation_.mutex_);
  cancellation_.streams_.push_back(&stream_);
  if (cancellation_.cancelled_) stream_.Cancel();
}

TrackedStream::~TrackedStream() {
  MutexLock lock(cancellation_.mutex_);
  std::vector<Stream*>& streams = cancellation_.streams_;
  streams.erase(std::find(streams.begin(), streams.end(), &stream_));
}

}  // namespace modelstore::internal
