// Saves and loads of one large state, alternating with torch.save and torch.load.
#include <unistd.h>

#include <cmath>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/peer.h"
#include "tests/benchmarks/server_process.h"
#include "tests/benchmarks/training_state.h"

namespace modelstore::bench {
namespace {

double Throughput(int64_t bytes, double seconds) {
  return static_cast<double>(bytes) / 1e9 / seconds;
}

// Everything one group needs, built once per group.
struct Setup {
  explicit Setup(const Settings& s)
      : settings(s),
        elements(StateShape(s.state_bytes)),
        state(elements),
        server(OrDie(ServerProcess::Start(s.server_binary, s.folder + "/server"))),
        client(OrDie(Client::Connect(server.address()))),
        peer(OrDie(TorchPeer::Start(s.peer_script, elements, s.folder + "/peer.log"))),
        file(s.folder + "/peer.pt") {}
  ~Setup() { unlink(file.c_str()); }

  const Settings& settings;
  std::vector<int64_t> elements;
  TrainingState state;
  ServerProcess server;
  Client client;
  TorchPeer peer;
  std::string file;

  // Seconds of `section`, after the machine has settled.
  double Time(const std::function<void()>& section) const {
    Settle(settings.touch_bytes);
    Stopwatch watch;
    section();
    return watch.seconds();
  }
  double TimePeer(const std::string& command) {
    Settle(settings.touch_bytes);
    return OrDie(peer.Run(command, file));
  }
  // Both ends'.
  double Cpu() const { return CpuSeconds(0) + CpuSeconds(server.pid()); }
};

// One value per pair of ours, the peer's and perhaps the machine's own limit.
struct Series {
  std::vector<double> ours, peer, ratio, limit, of_limit, cpu;
  void Pair(double our_seconds, double peer_seconds) {
    ours.push_back(our_seconds);
    peer.push_back(peer_seconds);
    ratio.push_back(peer_seconds / our_seconds);
  }
  void Limit(double seconds) {
    limit.push_back(seconds);
    of_limit.push_back(seconds / ours.back());
  }
};

// Runs each of `sections` once, in an order that turns with the round, so that a
// drift of the machine favours nobody.
void Rotate(int round, const std::vector<std::function<void()>>& sections) {
  for (size_t i = 0; i < sections.size(); ++i) {
    sections[(i + static_cast<size_t>(round)) % sections.size()]();
  }
}

Figure Ratio(const std::string& name, const Series& s, int64_t bytes) {
  return {name,
          Median(s.ratio),
          "ratio",
          {{"ours_gb_per_s", Throughput(bytes, Median(s.ours))},
           {"peer_gb_per_s", Throughput(bytes, Median(s.peer))},
           {"pairs", static_cast<double>(s.ratio.size())}}};
}

Figure OfLimit(const std::string& name, const Series& s, int64_t bytes) {
  return {name,
          Median(s.of_limit),
          "ratio",
          {{"limit_gb_per_s", Throughput(bytes, Median(s.limit))}}};
}

}  // namespace

void MeasureSaves(const Settings& settings, Report& report) {
  Setup setup(settings);
  const int64_t bytes = setup.state.total_bytes();
  Series saves;
  std::vector<double> amplification;
  // Round 0 warms both sides up and is not counted.
  for (int round = 0; round <= settings.pairs; ++round) {
    const std::string model = absl::StrCat("models/first-", round);
    double ours = 0, peer = 0, disk = 0, cpu = 0, written = 0;
    Rotate(round, {[&] {
                     Settle(settings.touch_bytes);
                     const double cpu_before = setup.Cpu();
                     const int64_t before = WriteBytes(setup.server.pid());
                     Stopwatch watch;
                     OrDie(setup.state.Save(setup.client, model));
                     ours = watch.seconds();
                     cpu = setup.Cpu() - cpu_before;
                     sync();
                     written =
                         static_cast<double>(WriteBytes(setup.server.pid()) - before);
                   },
                   [&] { peer = setup.TimePeer("save_fsync"); },
                   [&] {
                     Settle(settings.touch_bytes);
                     disk = OrDie(DiskWriteSeconds(settings.folder + "/limit", bytes));
                   }});
    OrDie(setup.server.DeleteModel(model));
    if (round == 0) continue;
    saves.Pair(ours, peer);
    saves.Limit(disk);
    saves.cpu.push_back(cpu / (static_cast<double>(bytes) / 1e9));
    amplification.push_back(written / static_cast<double>(bytes));
  }
  report.Add(Ratio("save_vs_torch_save_fsync", saves, bytes));
  report.Add(OfLimit("save_vs_disk", saves, bytes));
  report.Add({"save_cpu_s_per_gb", Median(saves.cpu), "s/GB"});
  report.Add({"write_amplification", Median(amplification), "ratio"});
}

void MeasureStall(const Settings& settings, Report& report) {
  Setup setup(settings);
  const int64_t bytes = setup.state.total_bytes();
  std::vector<double> ours, peer, ratio;
  for (int round = 0; round <= settings.pairs; ++round) {
    double stall = 0, save = 0;
    Rotate(round,
           {[&] {
              setup.state.ChangeAll();
              std::vector<SaveHandle> handle;
              stall = setup.Time([&] {
                handle.push_back(setup.state.SaveAsync(setup.client, "models/stall"));
                OrDie(handle.back().Staged(After(std::chrono::minutes(2))));
              });
              OrDie(handle.back().Durable(After(std::chrono::minutes(5))));
            },
            [&] { save = setup.TimePeer("save"); }});
    // The first save allocates the staging pool.
    if (round == 0) continue;
    // Old versions go, so that the disk does not fill.
    if (round >= 2) {
      OrDie(setup.client.DeleteCheckpoint(
          absl::StrCat("models/stall/checkpoints/", round - 1)));
    }
    ours.push_back(stall);
    peer.push_back(save);
    ratio.push_back(stall / save);
  }
  OrDie(setup.server.DeleteModel("models/stall"));
  report.Add({"async_stall_vs_torch_save",
              Median(ratio),
              "ratio",
              {{"stall_ms", Median(ours) * 1e3},
               {"torch_save_ms", Median(peer) * 1e3},
               {"gb", static_cast<double>(bytes) / 1e9},
               {"pairs", static_cast<double>(ratio.size())}}});
}

void MeasureResaves(const Settings& settings, Report& report) {
  Setup setup(settings);
  const int64_t bytes = setup.state.total_bytes();
  std::vector<double> full, again, speedup, wire;
  int64_t changed = 0;
  for (int round = 0; round <= settings.pairs; ++round) {
    const std::string model = absl::StrCat("models/resave-", round);
    const double first =
        setup.Time([&] { OrDie(setup.state.Save(setup.client, model)); });
    changed = setup.state.ChangeOne(bytes / 100);
    Settle(settings.touch_bytes);
    const int64_t before = LoopbackBytes();
    Stopwatch watch;
    OrDie(setup.state.Save(setup.client, model));
    const double second = watch.seconds();
    const auto crossed = static_cast<double>(LoopbackBytes() - before);
    OrDie(setup.server.DeleteModel(model));
    if (round == 0) continue;
    full.push_back(first);
    again.push_back(second);
    speedup.push_back(first / second);
    wire.push_back(crossed / static_cast<double>(changed));
  }
  report.Add(
      {"resave_speedup",
       Median(speedup),
       "ratio",
       {{"first_save_ms", Median(full) * 1e3}, {"resave_ms", Median(again) * 1e3}}});
  // All traffic of the interface, both directions, headers too.
  report.Add({"resave_bytes_ratio",
              Median(wire),
              "ratio",
              {{"changed_bytes", static_cast<double>(changed)}}});
}

void MeasureLoads(const Settings& settings, Report& report) {
  Setup setup(settings);
  const int64_t bytes = setup.state.total_bytes();
  const std::string name = "models/load/checkpoints/latest";
  OrDie(setup.state.Save(setup.client, "models/load"));
  OrDie(setup.peer.Run("save", setup.file));
  OrDie(setup.state.VerifyLoad(setup.client, name));
  Series live, fresh;
  for (int round = 0; round <= settings.pairs; ++round) {
    double ours = 0, peer = 0, ours_fresh = 0, peer_fresh = 0, plain = 0, cpu = 0;
    Rotate(round, {[&] {
                     Settle(settings.touch_bytes);
                     const double before = setup.Cpu();
                     Stopwatch watch;
                     OrDie(setup.state.Load(setup.client, name));
                     ours = watch.seconds();
                     cpu = setup.Cpu() - before;
                   },
                   [&] { peer = setup.TimePeer("load"); },
                   [&] {
                     Settle(settings.touch_bytes);
                     ours_fresh = OrDie(setup.state.LoadFresh(setup.client, name));
                   },
                   [&] { peer_fresh = setup.TimePeer("load_fresh"); },
                   [&] {
                     Settle(settings.touch_bytes);
                     plain = OrDie(SocketSeconds(bytes));
                   }});
    if (round == 0) continue;
    live.Pair(ours, peer);
    live.Limit(plain);
    live.cpu.push_back(cpu / (static_cast<double>(bytes) / 1e9));
    fresh.Pair(ours_fresh, peer_fresh);
  }
  OrDie(setup.server.DeleteModel("models/load"));
  report.Add(Ratio("load_vs_torch_load", live, bytes));
  report.Add(Ratio("load_fresh_vs_torch_load", fresh, bytes));
  report.Add(OfLimit("load_vs_socket", live, bytes));
  report.Add({"load_cpu_s_per_gb", Median(live.cpu), "s/GB"});
}

}  // namespace modelstore::bench
