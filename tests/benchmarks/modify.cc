// Modifications on the server, alternating with the same work in Python: a file is
// loaded, converted or averaged, and saved and synced under another name.
#include "modelstore/modify.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/peer.h"
#include "tests/benchmarks/server_process.h"
#include "tests/benchmarks/training_state.h"

namespace modelstore::bench {
namespace {

constexpr int kAveraged = 3;
constexpr int64_t kTensorBytes = int64_t{64} << 20;

// Versions 1 to 3 of one model, and the same as the peer's files.
class Setup {
 public:
  explicit Setup(const Settings& settings)
      : settings_(settings),
        elements_(StateShape(settings.state_bytes)),
        server_(OrDie(
            ServerProcess::Start(settings.server_binary, settings.folder + "/server"))),
        client_(OrDie(Client::Connect(server_.address()))),
        peer_(OrDie(TorchPeer::Start(settings.peer_script, elements_,
                                     settings.folder + "/peer.log"))),
        out_(settings.folder + "/peer-out.pt") {
    TrainingState state(elements_);
    bytes_ = state.total_bytes();
    for (int version = 1; version <= kAveraged; ++version) {
      OrDie(state.Save(client_, "models/base"));
      state.ChangeAll();
      names_.push_back(absl::StrCat("models/base/checkpoints/", version));
      files_.push_back(absl::StrCat(settings.folder, "/peer-", version, ".pt"));
      OrDie(peer_.Run("save", files_.back()));
    }
  }
  ~Setup() {
    for (const std::string& file : files_) unlink(file.c_str());
    unlink(out_.c_str());
  }

  const std::vector<std::string>& names() const { return names_; }
  int64_t bytes() const { return bytes_; }

  // What was made is deleted again, outside of the time, bytes and all: else the next
  // round would find its chunks stored already. Each must store `stored` bytes.
  double Ours(const EditList& edits, int64_t stored) {
    Settle(settings_.touch_bytes);
    Stopwatch watch;
    const ModifyResult made = OrDie(ModifyCheckpoint(client_, names_[0], edits));
    const double seconds = watch.seconds();
    OrDie(client_.DeleteCheckpoint(made.checkpoint.name));
    OrDie(server_.CollectDeleted());
    if (made.stored_bytes < stored) {
      OrDie(absl::InternalError(absl::StrCat("a modification stored ", made.stored_bytes,
                                             " bytes, not the ", stored, " it made")));
    }
    return seconds;
  }
  double Peer(const std::string& command, size_t files) {
    Settle(settings_.touch_bytes);
    return OrDie(peer_.Run(
        command,
        absl::StrCat(out_, " ",
                     absl::StrJoin(files_.begin(), files_.begin() + files, " "))));
  }

 private:
  const Settings& settings_;
  const std::vector<int64_t> elements_;
  ServerProcess server_;
  Client client_;
  TorchPeer peer_;
  const std::string out_;
  std::vector<std::string> names_, files_;
  int64_t bytes_ = 0;
};

// GB/s of what is read.
Figure Compare(const std::string& name, const Settings& settings, int64_t bytes,
               const std::function<double()>& ours, const std::function<double()>& peer) {
  std::vector<double> our_seconds, peer_seconds, ratios;
  // Round 0 warms both sides up and is not counted.
  for (int round = 0; round <= settings.pairs; ++round) {
    double a = 0, b = 0;
    if (round % 2 == 0) {
      a = ours();
      b = peer();
    } else {
      b = peer();
      a = ours();
    }
    if (round == 0) continue;
    our_seconds.push_back(a);
    peer_seconds.push_back(b);
    ratios.push_back(b / a);
  }
  const double gigabytes = static_cast<double>(bytes) / 1e9;
  return {name,
          Median(ratios),
          "ratio",
          {{"ours_gb_per_s", gigabytes / Median(our_seconds)},
           {"peer_gb_per_s", gigabytes / Median(peer_seconds)},
           {"pairs", static_cast<double>(ratios.size())}}};
}

// Saves `bytes` that no two chunks have in common.
void SaveLarge(Client& client, int64_t bytes) {
  std::vector<uint32_t> data(static_cast<size_t>(bytes / 4));
  uint32_t x = 2463534242u;
  for (uint32_t& word : data) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    // Floats between 1 and 2: no NaN, whose payload a cast may change.
    word = 0x3f800000 | (x >> 9);
  }
  SaveContent content;
  for (int64_t at = 0; at < bytes; at += kTensorBytes) {
    TensorView view;
    view.info.key = absl::StrCat("t", at / kTensorBytes);
    view.info.size_bytes = std::min(kTensorBytes, bytes - at);
    view.info.shape = {view.info.size_bytes / 4};
    view.data = reinterpret_cast<const char*>(data.data()) + at;
    view.immutable = true;
    content.tensors.push_back(std::move(view));
  }
  SaveHandle handle = client.SaveAsync("models/large", std::move(content));
  OrDie(handle.Durable(After(std::chrono::minutes(5))));
}

// Until the memory of the save is given back.
double SettledMib(const ServerProcess& server, double before) {
  double now = RssAnonMib(server.pid());
  for (int i = 0; i < 60 && now > before + 16; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    now = RssAnonMib(server.pid());
  }
  return now;
}

}  // namespace

void MeasureModifications(const Settings& settings, Report& report) {
  Setup setup(settings);
  report.Add(Compare(
      "modify_cast_vs_torch", settings, setup.bytes(),
      [&] { return setup.Ours(EditList().Cast(DType::kBfloat16), setup.bytes() / 2); },
      [&] { return setup.Peer("cast", 1); }));
  report.Add(Compare(
      "modify_average_vs_torch", settings, kAveraged * setup.bytes(),
      [&] { return setup.Ours(EditList().Average(setup.names()), setup.bytes()); },
      [&] { return setup.Peer("average", kAveraged); }));
}

void MeasureModifyMemory(const Settings& settings, Report& report) {
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  Client client = OrDie(Client::Connect(server.address()));
  const double idle = RssAnonMib(server.pid());
  SaveLarge(client, 4 * settings.state_bytes);
  const double settled = SettledMib(server, idle);
  const std::string name = "models/large/checkpoints/1";
  const auto peak = [&](const EditList& edits) {
    RssSampler sampler(server.pid());
    const ModifyResult made = OrDie(ModifyCheckpoint(client, name, edits));
    OrDie(client.DeleteCheckpoint(made.checkpoint.name));
    return sampler.peak_mib() - idle;
  };
  const double cast = peak(EditList().Cast(DType::kBfloat16));
  const double average = peak(EditList().Average({name, name}));
  report.Add({"modify_rss_mib",
              std::max(cast, average),
              "MiB",
              {{"cast_mib", cast},
               {"average_mib", average},
               {"after_save_mib", settled - idle}}});
}

}  // namespace modelstore::bench
