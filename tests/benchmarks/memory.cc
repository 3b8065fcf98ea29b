// How far the server's memory grows: under many large streams at once, and under
// clients that stall in the middle of an upload.
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modelstore/client.h"
#include "modelstore/v1/checkpoint_transfer.grpc.pb.h"
#include "proto/contract/digest.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/server_process.h"
#include "tests/benchmarks/stalling_proxy.h"

namespace modelstore::bench {
namespace {

constexpr int64_t kTensorBytes = int64_t{16} << 20;

// One client with one stream, which saves and loads `bytes` in tensors of 16 MiB.
class Worker {
 public:
  Worker(const std::string& address, int64_t bytes, int seed)
      : client_(OrDie(Client::Connect(address, OneStream()))),
        data_(static_cast<size_t>(bytes / 4)) {
    uint32_t x = 2463534242u + static_cast<uint32_t>(seed);
    for (uint32_t& word : data_) {
      x ^= x << 13, x ^= x >> 17, x ^= x << 5;
      word = x;
    }
  }

  void Save(const std::string& model) {
    SaveContent content;
    const int64_t bytes = static_cast<int64_t>(data_.size()) * 4;
    for (int64_t at = 0; at < bytes; at += kTensorBytes) {
      TensorView view;
      view.info.key = absl::StrCat("t", at / kTensorBytes);
      view.info.size_bytes = std::min(kTensorBytes, bytes - at);
      view.info.shape = {view.info.size_bytes / 4};
      view.data = reinterpret_cast<const char*>(data_.data()) + at;
      view.immutable = true;
      content.tensors.push_back(std::move(view));
    }
    SaveHandle handle = client_.SaveAsync(model, std::move(content));
    OrDie(handle.Durable(After(std::chrono::minutes(5))));
  }

  // Lands in the same memory that was saved.
  void Load(const std::string& model) {
    LoadPlan plan = OrDie(client_.PlanLoad(model + "/checkpoints/latest"));
    char* at = reinterpret_cast<char*>(data_.data());
    for (size_t i = 0; i < plan.tensors().size(); ++i) {
      const auto size = static_cast<size_t>(plan.tensors()[i].size_bytes);
      OrDie(plan.Bind(i, {at, size, nullptr}));
      at += size;
    }
    OrDie(plan.Run(After(std::chrono::minutes(5))));
  }

 private:
  static ConnectOptions OneStream() {
    ConnectOptions options;
    options.streams = 1;
    return options;
  }
  Client client_;
  std::vector<uint32_t> data_;
};

double IdleMib(ServerProcess& server) {
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  return RssAnonMib(server.pid());
}

// Four streams save and four load, `bytes` each, at once.
double StreamsMib(const Settings& settings, int64_t bytes) {
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  const double idle = IdleMib(server);
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 8; ++i) {
    workers.push_back(std::make_unique<Worker>(server.address(), bytes, i));
  }
  double peak = 0;
  {
    RssSampler sampler(server.pid());
    workers[4]->Save("models/loaded");
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        if (i < 4) {
          workers[i]->Save(absl::StrCat("models/saved-", i));
        } else {
          workers[i]->Load("models/loaded");
        }
      });
    }
    for (std::thread& t : threads) t.join();
    peak = sampler.peak_mib();
  }
  return peak - idle;
}

// Uploads that send chunk after chunk until the proxy passes nothing on.
class StalledUploads {
 public:
  StalledUploads(const std::string& direct, const std::string& through, int count)
      : chunk_(4 << 20, 'x') {
    contexts_.resize(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
      contexts_[i] = std::make_unique<grpc::ClientContext>();
      threads_.emplace_back([this, i, direct, through] { Upload(i, direct, through); });
    }
  }
  ~StalledUploads() {
    for (auto& c : contexts_) c->TryCancel();
    for (std::thread& t : threads_) t.join();
  }

 private:
  void Upload(int index, const std::string& direct, const std::string& through) {
    grpc::ChannelArguments args;
    args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto open = [&](const std::string& address) {
      return v1::CheckpointTransfer::NewStub(
          grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args));
    };
    v1::CreateUploadRequest create;
    create.set_parent(absl::StrCat("models/stalled-", index));
    create.set_create_model(true);
    v1::Upload upload;
    grpc::ClientContext create_context;
    if (!open(direct)->CreateUpload(&create_context, create, &upload).ok()) return;

    auto stub = open(through);
    v1::UploadChunksResponse response;
    auto writer = stub->UploadChunks(contexts_[index].get(), &response);
    v1::UploadChunksRequest request;
    request.set_upload(upload.name());
    // 256 MiB are more than the proxy passes: the loop ends by cancellation.
    for (int i = 0; i < 64; ++i) {
      std::string data = chunk_;
      data.replace(0, 8, absl::StrCat(10000 + index, 100 + i));
      const Digest digest = ComputeDigest(DigestAlgorithm::kXxh3_128, data);
      request.clear_chunks();
      v1::ChunkHeader* header = request.add_chunks();
      header->set_digest(std::string(digest.bytes()));
      header->set_size_bytes(static_cast<int64_t>(data.size()));
      request.set_data(std::move(data));
      if (!writer->Write(request)) break;
      request.clear_upload();
    }
    writer->Finish();
  }

  const std::string chunk_;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts_;
  std::vector<std::thread> threads_;
};

struct Stalled {
  double mib = 0;
  double healthy_seconds = 0;
  int stalled = 0;
};

// Waits until every upload has come to its stall, or none has moved for 3 s: a
// server short of memory leaves some of them waiting before. Returns how many
// stalled by themselves.
int WaitUntilStalled(const StallingProxy& proxy, int count) {
  int64_t passed = -1;
  for (int i = 0; i < 40 && proxy.stalled() < count; ++i) {
    if (passed == proxy.passed_bytes()) break;
    passed = proxy.passed_bytes();
    std::this_thread::sleep_for(std::chrono::seconds(3));
  }
  return proxy.stalled();
}

// 200 stalled uploads, and a healthy client that saves and loads meanwhile.
Stalled StalledMib(const Settings& settings, int64_t healthy_bytes) {
  const int count = settings.quick ? 50 : 200;
  ServerProcess server =
      OrDie(ServerProcess::Start(settings.server_binary, settings.folder + "/server"));
  const double idle = IdleMib(server);
  const int port =
      std::atoi(server.address().substr(server.address().find(':') + 1).c_str());
  StallingProxy proxy(port, 64 << 10, 331 << 10);
  Worker healthy(server.address(), healthy_bytes, 99);
  Stalled result;
  {
    RssSampler sampler(server.pid());
    StalledUploads uploads(server.address(), proxy.address(), count);
    result.stalled = WaitUntilStalled(proxy, count);
    Stopwatch watch;
    healthy.Save("models/healthy");
    healthy.Load("models/healthy");
    result.healthy_seconds = watch.seconds();
    result.mib = sampler.peak_mib() - idle;
  }
  return result;
}

}  // namespace

void MeasureMemory(const Settings& settings, Report& report) {
  // 200 connections are 400 descriptors of the proxy's alone.
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  const double streams = StreamsMib(settings, settings.state_bytes);
  const Stalled stalled = StalledMib(settings, settings.state_bytes / 4);
  report.Add({"server_rss_mib",
              std::max(streams, stalled.mib),
              "MiB",
              {{"streams_mib", streams},
               {"stalled_mib", stalled.mib},
               {"stalled_uploads", static_cast<double>(stalled.stalled)},
               {"healthy_beside_stalled_s", stalled.healthy_seconds}}});
}

}  // namespace modelstore::bench
