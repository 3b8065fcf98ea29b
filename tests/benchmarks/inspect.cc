// Verifying and comparing what is stored, beside reading the same files plainly.
#include "modelstore/inspect.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/server_process.h"
#include "tests/benchmarks/training_state.h"

namespace modelstore::bench {
namespace {

// The client cuts its chunks so.
constexpr int64_t kRead = int64_t{512} << 10;

double GibPerSecond(int64_t bytes, double seconds) {
  return static_cast<double>(bytes) / (1 << 30) / seconds;
}

std::vector<std::string> Packs(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/packs")) {
    if (entry.path().extension() == ".sst") files.push_back(entry.path());
  }
  return files;
}

// Seconds to read files by `threads` threads, into one buffer each; with a digest of
// every `kRead` bytes, or without.
absl::StatusOr<double> ReadSeconds(const std::vector<std::string>& files, int threads,
                                   bool with_digest, int64_t* bytes) {
  std::vector<std::pair<int, int64_t>> runs;
  std::vector<int> open_files;
  absl::Cleanup close_all = [&] {
    for (const int fd : open_files) close(fd);
  };
  *bytes = 0;
  for (const std::string& file : files) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return absl::ErrnoToStatus(errno, file);
    open_files.push_back(fd);
    const auto size = static_cast<int64_t>(std::filesystem::file_size(file));
    for (int64_t at = 0; at < size; at += kRead) runs.emplace_back(fd, at);
    *bytes += size;
  }
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  const auto work = [&] {
    std::vector<char> buffer(kRead);
    for (size_t i = next++; i < runs.size(); i = next++) {
      const ssize_t n =
          pread(runs[i].first, buffer.data(), buffer.size(), runs[i].second);
      if (n <= 0) failed = true;
      if (n <= 0 || !with_digest) continue;
      const absl::string_view read(buffer.data(), static_cast<size_t>(n));
      // Used, so that it is computed.
      if (ComputeDigest(DigestAlgorithm::kXxh3_128, read).bytes().empty()) failed = true;
    }
  };
  Stopwatch watch;
  std::vector<std::thread> pool;
  for (int i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  for (std::thread& thread : pool) thread.join();
  if (failed) return absl::DataLossError("a pack cannot be read");
  return watch.seconds();
}

}  // namespace

void MeasureInspect(const Settings& settings, Report& report) {
  TrainingState state(StateShape(settings.state_bytes));
  const std::string folder = settings.folder + "/server";
  ServerProcess server = OrDie(ServerProcess::Start(settings.server_binary, folder));
  Client client = OrDie(Client::Connect(server.address()));
  const auto first = OrDie(state.Save(client, "models/inspect"));
  const std::vector<std::string> packs = Packs(folder + "/data");
  state.ChangeAll();
  const auto second = OrDie(state.Save(client, "models/inspect"));
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<double> verify, finite, compare, plain, digest, digest_all;
  for (int round = 0; round <= settings.pairs; ++round) {
    int64_t bytes = 0;
    const auto timed = [&](std::vector<double>& into, int64_t of, double seconds) {
      // Round 0 warms up.
      if (round > 0) into.push_back(GibPerSecond(of, seconds));
    };
    Settle(settings.touch_bytes);
    double seconds = OrDie(ReadSeconds(packs, 1, false, &bytes));
    timed(plain, bytes, seconds);
    seconds = OrDie(ReadSeconds(packs, 1, true, &bytes));
    timed(digest, bytes, seconds);
    seconds = OrDie(ReadSeconds(packs, cores, true, &bytes));
    timed(digest_all, bytes, seconds);
    for (const bool count : {false, true}) {
      Stopwatch watch;
      const VerifyReport verified =
          OrDie(VerifyCheckpoint(client, first.name, {.count_non_finite = count}));
      timed(count ? finite : verify, verified.verified_bytes, watch.seconds());
      if (!verified.intact()) OrDie(absl::DataLossError("the saved state is damaged"));
    }
    Stopwatch watch;
    const CompareReport compared =
        OrDie(CompareCheckpoints(client, first.name, second.name, {.with_norms = true}));
    timed(compare, 2 * state.total_bytes(), watch.seconds());
    if (compared.equal_tensors != 0)
      OrDie(absl::InternalError("a tensor did not change"));
  }
  OrDie(server.DeleteModel("models/inspect"));
  const std::map<std::string, double> limits = {
      {"read_gib_per_s", Median(plain)},
      {"read_and_digest_gib_per_s", Median(digest)},
      {"read_and_digest_all_cores_gib_per_s", Median(digest_all)}};
  Figure verified = {"verify_gib_per_s", Median(verify), "GiB/s", limits};
  verified.details["with_non_finite_gib_per_s"] = Median(finite);
  report.Add(std::move(verified));
  // Of both checkpoints together.
  report.Add({"compare_gib_per_s", Median(compare), "GiB/s", limits});
}

}  // namespace modelstore::bench
