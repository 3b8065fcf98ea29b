// What the groups of measurements share. Each group is one function that adds
// its figures to the report.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/benchmarks/report.h"

namespace modelstore::bench {

struct Settings {
  // Working folder: the server's store, the peer's files. Emptied at the end.
  std::string folder;
  std::string server_binary;
  std::string peer_script;
  std::string store_bench;
  bool quick = false;
  // Bytes of tensors in the state that is saved and loaded.
  int64_t state_bytes = int64_t{1} << 30;
  // Alternating pairs per ratio; policy_overhead takes several times as many.
  int pairs = 7;
  // Memory touched and freed before each timed section.
  int64_t touch_bytes = int64_t{2} << 30;
};

// Durable first saves and resaves against torch.save, the disk, and the CPU.
void MeasureSaves(const Settings& settings, Report& report);
// The time a training step is held up by an asynchronous save.
void MeasureStall(const Settings& settings, Report& report);
void MeasureResaves(const Settings& settings, Report& report);
// Warm loads, into a live module and into fresh tensors.
void MeasureLoads(const Settings& settings, Report& report);
// The server's memory under many streams and under stalled ones.
void MeasureMemory(const Settings& settings, Report& report);
// Verifying and comparing on the server, against reading the same files.
void MeasureInspect(const Settings& settings, Report& report);
void MeasureSmallSaves(const Settings& settings, Report& report);
// Bytes on the wire of a load of a part.
void MeasurePartialLoad(const Settings& settings, Report& report);
// An epoch with a save in the background against one without.
void MeasurePolicyOverhead(const Settings& settings, Report& report);
// Casts and averages on the server, against torch; then the server's memory
// while it modifies a checkpoint of four times the state.
void MeasureModifications(const Settings& settings, Report& report);
void MeasureModifyMemory(const Settings& settings, Report& report);
// VGG16's last layer replaced on the server.
void MeasureModifyHead(const Settings& settings, Report& report);
// How long after a change its watchers hear of it.
void MeasureWatch(const Settings& settings, Report& report);

// A benchmark that cannot measure says why and ends: at once, since threads that
// still wait for the server would hold up an ordinary exit.
inline void OrDie(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "bench: %s\n", status.ToString().c_str());
  std::fflush(nullptr);
  std::_Exit(1);
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  OrDie(value.status());
  return *std::move(value);
}

}  // namespace modelstore::bench
