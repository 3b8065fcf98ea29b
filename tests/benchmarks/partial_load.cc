// A load of a part: what crosses the wire beside what was asked for.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modelstore/client.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/server_process.h"

namespace modelstore::bench {
namespace {

constexpr int64_t kColumns = 1024;
constexpr int kLayers = 4;

TensorView View(const char* section, const std::string& key, int64_t rows,
                const std::vector<float>& data) {
  TensorView view;
  view.info.section = section;
  view.info.key = key;
  view.info.shape = {rows, kColumns};
  view.info.size_bytes = rows * kColumns * 4;
  view.data = data.data();
  view.immutable = true;
  return view;
}

// A table and layers as the model, and Adam's two moments of each.
SaveContent Content(int64_t rows, const std::vector<std::vector<float>>& data) {
  SaveContent content;
  for (int i = 0; i <= kLayers; ++i) {
    const std::string key = i == 0 ? "table" : absl::StrCat("layer", i);
    content.tensors.push_back(View("model", key, rows, data[i]));
    for (const char* moment : {"exp_avg", "exp_avg_sq"}) {
      content.tensors.push_back(
          View("optimizer", absl::StrCat("state/", i, "/", moment), rows, data[i]));
    }
  }
  content.sections = {{"model", Value(), Value()}, {"optimizer", Value(), Value()}};
  return content;
}

// Bytes asked for; `crossed` gets those of the interface.
int64_t LoadPart(Client& client, int64_t rows, int64_t* crossed) {
  LoadOptions options;
  options.selection.sections = {"model"};
  options.slices = {{"model:table", rows / 2, rows / 2 + rows / 10}};
  const int64_t before = LoopbackBytes();
  LoadPlan plan = OrDie(client.PlanLoad("models/partial/checkpoints/latest", options));
  for (size_t i = 0; i < plan.tensors().size(); ++i) {
    const auto size = static_cast<size_t>(plan.tensors()[i].size_bytes);
    auto buffer = std::make_shared<std::vector<char>>(size);
    OrDie(plan.Bind(i, {buffer->data(), size, buffer}));
  }
  OrDie(plan.Run(After(std::chrono::minutes(2))));
  *crossed = LoopbackBytes() - before;
  return plan.total_bytes();
}

}  // namespace

void MeasurePartialLoad(const Settings& settings, Report& report) {
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  Client client = OrDie(Client::Connect(server.address()));
  const int64_t rows = settings.quick ? 1000 : 10'000;
  std::vector<std::vector<float>> data;
  for (int i = 0; i <= kLayers; ++i) {
    data.emplace_back(rows * kColumns, static_cast<float>(i) + 0.5f);
  }
  OrDie(client.SaveAsync("models/partial", Content(rows, data))
            .Durable(After(std::chrono::minutes(5))));
  std::vector<double> ratios;
  int64_t asked = 0;
  for (int round = 0; round < settings.pairs; ++round) {
    int64_t crossed = 0;
    asked = LoadPart(client, rows, &crossed);
    ratios.push_back(static_cast<double>(crossed) / static_cast<double>(asked));
  }
  OrDie(server.DeleteModel("models/partial"));
  // All traffic of the interface, both directions, headers too.
  report.Add({"partial_load_bytes_ratio",
              Median(ratios),
              "ratio",
              {{"asked_bytes", static_cast<double>(asked)},
               {"checkpoint_bytes",
                static_cast<double>(rows * kColumns * 4 * 3 * (kLayers + 1))}}});
}

}  // namespace modelstore::bench
