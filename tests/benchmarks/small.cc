// Saves of a tiny model: latency, and how often the server waits for the disk.
#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "modelstore/client.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/server_process.h"

namespace modelstore::bench {
namespace {

// Weight and bias of a Linear(4, 2): ten parameters.
class TinyModel {
 public:
  void Save(Client& client) {
    ++values_[0];  // each save is another content
    SaveContent content;
    content.tensors = {View("weight", values_, {2, 4}), View("bias", values_ + 8, {2})};
    content.metadata.epoch = ++epoch_;
    SaveHandle handle = client.SaveAsync("models/small", std::move(content));
    OrDie(handle.Durable(After(std::chrono::seconds(30))));
  }

 private:
  static TensorView View(const char* key, const float* data, std::vector<int64_t> shape) {
    TensorView view;
    view.info.key = key;
    view.info.size_bytes = 4;
    for (int64_t n : shape) view.info.size_bytes *= n;
    view.info.shape = std::move(shape);
    view.data = data;
    return view;
  }
  float values_[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  int64_t epoch_ = 0;
};

// Calls of fsync and fdatasync by the server during `saves` saves, per save.
double SyncsPerSave(const Settings& settings, ServerProcess& server, TinyModel& model,
                    Client& client, int saves) {
  const std::string trace = settings.folder + "/strace";
  Process strace = OrDie(Process::Start(
      {"strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o",
       trace, "-p", absl::StrCat(server.pid())},
      settings.folder + "/strace.log", false));
  // Attached once a save shows up in the trace.
  const auto calls = [&trace] {
    int n = 0;
    std::string line;
    for (std::ifstream in(trace); std::getline(in, line);) {
      // A call that another thread interrupts is printed twice.
      n += absl::StrContains(line, "sync") && !absl::StrContains(line, "resumed") ? 1 : 0;
    }
    return n;
  };
  for (int i = 0; i < 100 && calls() == 0; ++i) {
    if (!strace.Running()) break;
    model.Save(client);
    usleep(50'000);
  }
  const int before = calls();
  if (before == 0) {
    OrDie(absl::UnavailableError("strace sees no sync of the server; see strace.log"));
  }
  for (int i = 0; i < saves; ++i) model.Save(client);
  usleep(200'000);
  const int after = calls();
  strace.Stop(SIGINT, 10);
  return static_cast<double>(after - before) / saves;
}

}  // namespace

void MeasureSmallSaves(const Settings& settings, Report& report) {
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  Client client = OrDie(Client::Connect(server.address()));
  TinyModel model;
  for (int i = 0; i < 20; ++i) model.Save(client);
  std::vector<double> ms;
  const int saves = settings.quick ? 100 : 500;
  for (int i = 0; i < saves; ++i) {
    Stopwatch watch;
    model.Save(client);
    ms.push_back(watch.seconds() * 1e3);
  }
  report.Add({"small_save_ms",
              Quantile(ms, 0.5),
              "ms",
              {{"p50", Quantile(ms, 0.5)},
               {"p99", Quantile(ms, 0.99)},
               {"saves", static_cast<double>(saves)}}});
  report.Add(
      {"small_save_fsyncs", SyncsPerSave(settings, server, model, client, 50), "calls"});
}

}  // namespace modelstore::bench
