// What ./tests/bench runs: every figure of the project, in one report.
//
// Figures that need many packs or versions come from store_bench, a program of
// its own without a server.
#include <google/protobuf/stubs/common.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/training_state.h"

namespace modelstore::bench {
namespace {

// Runs store_bench and takes its figures over.
void RunStoreBench(const Settings& settings, bool reclaim, int expected, Report& report) {
  std::vector<std::string> argv = {settings.store_bench, "--folder",
                                   settings.folder + "/store"};
  if (reclaim) argv.push_back("--reclaim");
  if (settings.quick) argv.push_back("--quick");
  Process process =
      OrDie(Process::Start(argv, settings.folder + "/store_bench.log", true));
  int figures = 0;
  for (;;) {
    absl::StatusOr<std::string> line = process.ReadLine(1800);
    if (absl::IsUnavailable(line.status())) break;
    OrDie(line.status());
    if (std::optional<Figure> figure = ParseFigure(*line)) {
      report.Add(*std::move(figure));
      ++figures;
    }
  }
  if (figures < expected) {
    OrDie(absl::UnavailableError(
        absl::StrCat("store_bench gave ", figures, " of its ", expected, " figures")));
  }
}

void MeasureStore(const Settings& settings, Report& report) {
  RunStoreBench(settings, /*reclaim=*/false, 3, report);
}
void MeasureReclaim(const Settings& settings, Report& report) {
  RunStoreBench(settings, /*reclaim=*/true, 1, report);
}

struct Group {
  std::vector<std::string> figures;
  void (*measure)(const Settings&, Report&);
};

const std::vector<Group>& Groups() {
  static const std::vector<Group> groups = {
      {{"save_vs_torch_save_fsync", "save_vs_disk", "save_cpu_s_per_gb",
        "write_amplification"},
       MeasureSaves},
      {{"load_vs_torch_load", "load_fresh_vs_torch_load", "load_vs_socket",
        "load_cpu_s_per_gb"},
       MeasureLoads},
      {{"async_stall_vs_torch_save"}, MeasureStall},
      {{"resave_speedup", "resave_bytes_ratio"}, MeasureResaves},
      {{"server_rss_mib"}, MeasureMemory},
      {{"verify_gib_per_s", "compare_gib_per_s"}, MeasureInspect},
      {{"small_save_ms", "small_save_fsyncs"}, MeasureSmallSaves},
      {{"partial_load_bytes_ratio"}, MeasurePartialLoad},
      {{"policy_overhead"}, MeasurePolicyOverhead},
      {{"modify_cast_vs_torch", "modify_average_vs_torch"}, MeasureModifications},
      {{"modify_rss_mib"}, MeasureModifyMemory},
      {{"modify_head_ms", "modify_head_stored_bytes"}, MeasureModifyHead},
      {{"watch_latency_ms"}, MeasureWatch},
      {{"commit_ms_1000_packs", "commit_ms_10000_packs", "list_page_ms_100k"},
       MeasureStore},
      {{"reclaim_ratio"}, MeasureReclaim},
  };
  return groups;
}

bool Wanted(const Group& group, const std::vector<std::string>& only) {
  if (only.empty()) return true;
  for (const std::string& name : only) {
    for (const std::string& figure : group.figures) {
      if (absl::StrContains(figure, name)) return true;
    }
  }
  return false;
}

int Main(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> only;
  std::string json;
  CLI::App app{"Measures modelstore beside torch.save, torch.load and the machine"};
  app.add_option("--server", settings.server_binary, "modelstored")->required();
  app.add_option("--peer", settings.peer_script, "torch_peer.py")->required();
  app.add_option("--store-bench", settings.store_bench, "store_bench")->required();
  app.add_option("--folder", settings.folder, "working folder on the disk to measure")
      ->required();
  app.add_option("--pairs", settings.pairs, "alternating pairs per ratio");
  app.add_option("--only", only, "figures whose name contains this; may be repeated");
  app.add_option("--json", json, "also write the JSON lines to this file");
  app.add_flag("--quick", settings.quick, "64 MiB and 2 pairs: does it run at all");
  CLI11_PARSE(app, argc, argv);
  if (settings.quick) {
    settings.state_bytes = int64_t{64} << 20;
    settings.touch_bytes = int64_t{256} << 20;
    settings.pairs = 2;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::filesystem::create_directories(settings.folder);

  std::FILE* json_file = json.empty() ? nullptr : std::fopen(json.c_str(), "w");
  Report report(json_file);
  report.Note("machine", DescribeMachine(settings.folder));
  report.Note(
      "versions",
      absl::StrCat("gRPC ", grpc::Version(), ", protobuf ",
                   google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION),
                   ", LibTorch ", TrainingState::LibTorchVersion(), ", g++ ",
                   __VERSION__));
  int groups = 0;
  for (const Group& group : Groups()) {
    if (!Wanted(group, only)) continue;
    group.measure(settings, report);
    ++groups;
  }
  report.PrintTable();
  if (json_file != nullptr) std::fclose(json_file);
  if (groups == 0) std::fprintf(stderr, "bench: no figure has such a name\n");
  return groups == 0 ? 2 : 0;
}

}  // namespace
}  // namespace modelstore::bench

int main(int argc, char** argv) { return modelstore::bench::Main(argc, argv); }
