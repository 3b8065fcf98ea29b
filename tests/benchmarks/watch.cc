// How long after a change a worker hears of it.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modelstore/lifecycle.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/server_process.h"

namespace modelstore::bench {
namespace {

constexpr char kModel[] = "models/watched";
constexpr int kWatchers = 8;

void SaveOne(Client& client, float value) {
  TensorView view;
  view.info.key = "w";
  view.info.shape = {1};
  view.info.size_bytes = sizeof value;
  view.data = &value;
  SaveContent content;
  content.tensors = {view};
  OrDie(client.SaveAsync(kModel, std::move(content))
            .Durable(After(std::chrono::seconds(30))));
}

// Follows the model and notes when it heard of each change.
class Follower {
 public:
  Follower(Client client, const Stopwatch& clock, int changes)
      : client_(std::move(client)), clock_(clock), heard_(changes) {
    thread_ = std::thread([this] { Follow(); });
    while (!ready_) std::this_thread::yield();
  }
  const std::vector<double>& Join() {
    thread_.join();
    return heard_;
  }

 private:
  void Follow() {
    ModelWatcher watcher = OrDie(ModelWatcher::Open(client_, kModel));
    const auto next = [&] { OrDie(watcher.Next(After(std::chrono::seconds(30)))); };
    next();  // what is
    ready_ = true;
    for (double& heard : heard_) {
      next();
      heard = clock_.seconds();
    }
  }

  Client client_;
  const Stopwatch& clock_;
  std::vector<double> heard_;
  std::atomic<bool> ready_ = false;
  std::thread thread_;
};

}  // namespace

// From the moment at which the change is asked for, its sync to the disk included.
void MeasureWatch(const Settings& settings, Report& report) {
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  Client client = OrDie(Client::Connect(server.address()));
  SaveOne(client, 0);
  const int changes = settings.quick ? 40 : 400;
  const Stopwatch clock;
  std::vector<std::unique_ptr<Follower>> followers;
  for (int i = 0; i < kWatchers; ++i) {
    followers.push_back(std::make_unique<Follower>(client, clock, changes));
  }
  std::vector<double> asked;
  for (int i = 0; i < changes; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    asked.push_back(clock.seconds());
    if (i % 2 == 0) {
      SaveOne(client, static_cast<float>(i + 1));
    } else {
      OrDie(SetAlias(client, absl::StrCat(kModel, "/aliases/production"), i / 2 + 2));
    }
  }
  std::vector<double> ms;
  for (auto& follower : followers) {
    const std::vector<double>& heard = follower->Join();
    for (int i = 0; i < changes; ++i) ms.push_back((heard[i] - asked[i]) * 1e3);
  }
  report.Add({"watch_latency_ms",
              Quantile(ms, 0.99),
              "ms",
              {{"p50", Quantile(ms, 0.5)},
               {"watchers", static_cast<double>(kWatchers)},
               {"changes", static_cast<double>(changes)}}});
}

}  // namespace modelstore::bench
