#include <gtest/gtest.h>

#include <future>

#include "server/rpc/rpc_host.h"

namespace modelstore::server {
namespace {

class Recorder final : public WatchedStream {
 public:
  void OnTick(absl::Time idle_since, absl::Time stalled_since) override {
    if (ticked_) return;
    ticked_ = true;
    window_.set_value(stalled_since - idle_since);
  }
  absl::Duration Window() {
    auto future = window_.get_future();
    EXPECT_EQ(future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    return future.get();
  }

 private:
  bool ticked_ = false;
  std::promise<absl::Duration> window_;
};

TEST(StreamWatchTest, AStalledStreamHasLessTimeWhileOthersWaitForItsBytes) {
  for (const bool contended : {false, true}) {
    StreamWatch watch(absl::Seconds(10), absl::Seconds(2),
                      [contended] { return contended; });
    Recorder stream;
    watch.Add(&stream);
    EXPECT_EQ(stream.Window(), contended ? absl::Seconds(8) : absl::ZeroDuration());
    watch.Remove(&stream);
  }
}

TEST(StreamWatchTest, ARemovedStreamIsNotWatched) {
  StreamWatch watch(absl::Milliseconds(40), absl::Milliseconds(40), [] { return false; });
  for (int i = 0; i < 50; ++i) {
    auto stream = std::make_unique<Recorder>();
    watch.Add(stream.get());
    absl::SleepFor(absl::Milliseconds(1));
    watch.Remove(stream.get());
  }
}

}  // namespace
}  // namespace modelstore::server
