#include "client/torch/device/copy_queue.h"

#include <thread>
#include <utility>
#include <vector>

namespace modelstore::device {
namespace {

// How long the destructor waits for copies in flight.
constexpr auto kLastWait = std::chrono::seconds(10);

}  // namespace

CopyQueue::CopyQueue(DeviceRuntime& runtime, int device)
    : stream_(runtime.OpenStream(device)) {}

CopyQueue::~CopyQueue() {
  bool over = false;
  try {
    over = Wait(std::chrono::steady_clock::now() + kLastWait);
  } catch (const std::exception&) {
    // The device is in an error state; it is unknown whether it still copies.
  }
  // Leaks the entries on purpose: see the declaration.
  if (!over) new std::deque<Copying>(std::move(in_flight_));
}

void CopyQueue::Copy(void* to, const void* from, size_t bytes, Direction direction,
                     std::shared_ptr<void> kept) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // The entry is added first: if Record() throws, the copy may be in progress, and an
  // entry without an event never completes, so its memory is not freed.
  in_flight_.push_back({nullptr, std::move(kept)});
  try {
    stream_->Copy(to, from, bytes, direction);
  } catch (...) {
    in_flight_.pop_back();  // the copy was not queued
    throw;
  }
  in_flight_.back().event = stream_->Record();
}

void CopyQueue::Poll() {
  // Destroyed after the lock is released (it is declared before the lock): destructors of
  // the held objects may call back.
  std::vector<Copying> over;
  const std::lock_guard<std::mutex> lock(mutex_);
  while (!in_flight_.empty() && in_flight_.front().event != nullptr &&
         in_flight_.front().event->Done()) {
    over.push_back(std::move(in_flight_.front()));
    in_flight_.pop_front();
  }
}

bool CopyQueue::Wait(Deadline deadline) {
  while (true) {
    Poll();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (in_flight_.empty()) return true;
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kPollInterval);
  }
}

}  // namespace modelstore::device
