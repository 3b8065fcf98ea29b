// The in-process source of bytes that stands for a connection: several threads that
// bring tensors in runs, as the client's receivers do.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "modelstore/device_bytes.h"

namespace modelstore::support {

struct Delivery {
  std::shared_ptr<ByteSink> sink;
  const char* data;
  size_t bytes;
};

// Delivers all of it, `run_bytes` at a time, from `threads` threads. "" or the first
// error of a thread.
inline std::string DeliverAll(const std::vector<Delivery>& deliveries, size_t run_bytes,
                              int threads) {
  struct Run {
    const Delivery* to;
    size_t offset;
  };
  std::vector<Run> runs;
  for (const Delivery& d : deliveries) {
    for (size_t at = 0; at < d.bytes; at += run_bytes) runs.push_back({&d, at});
  }
  std::atomic<size_t> next{0};
  std::vector<std::string> errors(static_cast<size_t>(threads));
  std::vector<std::thread> lanes;
  for (int lane = 0; lane < threads; ++lane) {
    lanes.emplace_back([&, lane] {
      for (size_t i = next++; i < runs.size(); i = next++) {
        const auto [to, offset] = runs[i];
        const size_t n = std::min(run_bytes, to->bytes - offset);
        ByteSink::Slot slot = to->sink->Reserve(
            n, std::chrono::steady_clock::now() + std::chrono::seconds(30));
        if (slot.data == nullptr) {
          errors[lane] = "no slot";
          return;
        }
        std::memcpy(slot.data.get(), to->data + offset, n);
        errors[lane] =
            to->sink->Deliver(std::move(slot), n, static_cast<int64_t>(offset));
        if (!errors[lane].empty()) return;
      }
    });
  }
  for (std::thread& lane : lanes) lane.join();
  for (std::string& error : errors) {
    if (!error.empty()) return std::move(error);
  }
  return "";
}

}  // namespace modelstore::support
