// VGG16's last layer replaced on the server: what that stores, and how long it takes.
#include <torch/torch.h>

#include <algorithm>
#include <vector>

#include "client/examples/vgg16.h"
#include "modelstore/modify.h"
#include "modelstore/torch.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/server_process.h"

namespace modelstore::bench {
namespace {

constexpr int kTimes = 50;

}  // namespace

void MeasureModifyHead(const Settings& settings, Report& report) {
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  Client client = OrDie(Client::Connect(server.address()));
  {
    const vgg16::VGG net;
    OrDie(SaveCheckpoint(client, "models/vgg16",
                         {.module = net.get(), .forward = {{"", vgg16::Forward()}}}));
  }
  const EditList edits = EditList().ReplaceModule("classifier.6", "Linear(4096, 10)");
  std::vector<double> seconds;
  int64_t stored = 0, written = 0;
  // Time 0, in which the server loads torch, is told by itself.
  for (int i = 0; i <= kTimes; ++i) {
    const int64_t before = WriteBytes(server.pid());
    Stopwatch watch;
    const ModifyResult made =
        OrDie(ModifyCheckpoint(client, "models/vgg16/checkpoints/1", edits));
    seconds.push_back(watch.seconds());
    stored = made.stored_bytes;
    written = WriteBytes(server.pid()) - before;
  }
  const double first = seconds.front();
  seconds.erase(seconds.begin());
  std::sort(seconds.begin(), seconds.end());
  report.Add({"modify_head_ms",
              Median(seconds) * 1e3,
              "ms",
              {{"p99_ms", seconds[seconds.size() * 99 / 100] * 1e3},
               {"first_ms", first * 1e3},
               {"times", static_cast<double>(seconds.size())}}});
  // Beside the tensors: manifest, version, log of the catalog, in whole blocks.
  report.Add({"modify_head_stored_bytes",
              static_cast<double>(stored),
              "bytes",
              {{"all_written_bytes", static_cast<double>(written)}}});
}

}  // namespace modelstore::bench
