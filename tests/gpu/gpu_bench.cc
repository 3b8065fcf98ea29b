// How fast the device path is, both ways, beside a bare copy between one page-locked
// buffer and the GPU. Prints one JSON object a line.
//
//   gpu_bench GIB TORCH_LOAD_SECONDS     0 seconds: no torch.load to compare with
//
// Bytes come from this process's memory, so that these figures are of the device path
// alone: a server, a network and digests are not in them.
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "client/torch/device/device_load.h"
#include "client/torch/device/device_save.h"
#include "tests/gpu/byte_lanes.h"

namespace {

using modelstore::device::DeviceLoad;
using modelstore::device::DeviceSave;
using modelstore::device::Runtime;

constexpr int kRounds = 5;
constexpr int64_t kTensorBytes = int64_t{16} << 20;
constexpr size_t kRunBytes = size_t{1} << 20;  // as messages of a load are

auto TestDeadline() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(120);
}

void Require(const std::string& error) {
  if (error.empty()) return;
  std::fprintf(stderr, "gpu_bench: %s\n", error.c_str());
  std::exit(1);
}

// The median of the rounds, the first of which only warms up.
double Seconds(const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i <= kRounds; ++i) {
    torch::cuda::synchronize();
    const auto begin = std::chrono::steady_clock::now();
    work();
    torch::cuda::synchronize();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (i > 0) seconds.push_back(took.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[kRounds / 2];
}

void Print(const char* figure, double value) {
  std::printf("{\"figure\": \"%s\", \"value\": %.3f}\n", figure, value);
}

}  // namespace

int main(int argc, char** argv) {
  const double gib = argc > 1 ? std::atof(argv[1]) : 1;
  const double torch_load = argc > 2 ? std::atof(argv[2]) : 0;
  if (!torch::cuda::is_available()) {
    std::printf("not measured: no GPU was at hand\n");
    return 0;
  }
  const auto count = std::max<int64_t>(1, static_cast<int64_t>(gib * 64));
  const double bytes = static_cast<double>(count * kTensorBytes);
  std::vector<torch::Tensor> host;
  for (int64_t i = 0; i < count; ++i) host.push_back(torch::randn({kTensorBytes / 4}));
  std::vector<torch::Tensor> on_gpu;

  const double load = Seconds([&] {
    on_gpu.clear();
    for (const torch::Tensor& t : host) {
      on_gpu.push_back(Runtime().Empty(t.sizes(), t.scalar_type(), 0));
    }
    DeviceLoad loading(Runtime(), 0);
    std::vector<modelstore::support::Delivery> deliveries;
    for (int64_t i = 0; i < count; ++i) {
      deliveries.push_back({loading.SinkFor(on_gpu[i]),
                            static_cast<const char*>(host[i].data_ptr()),
                            host[i].nbytes()});
    }
    Require(modelstore::support::DeliverAll(deliveries, kRunBytes, 2));
    Require(loading.Finish(TestDeadline()));
  });

  const double save = Seconds([&] {
    DeviceSave saving(Runtime(), 0);
    std::vector<std::shared_ptr<modelstore::ByteSource>> sources;
    for (const torch::Tensor& t : on_gpu) sources.push_back(saving.SourceFor(t));
    saving.Begin();
    for (int64_t i = 0; i < count; ++i) {
      const auto room = sources[i]->AllocateStaging(kTensorBytes);
      Require(sources[i]->Begin(0, kTensorBytes, room.get(), room));
    }
    Require(sources.back()->Wait(TestDeadline()));
  });

  const torch::Tensor pinned =
      torch::empty({kTensorBytes / 4}, torch::TensorOptions().pinned_memory(true));
  const double bare_load = Seconds([&] {
    for (torch::Tensor& t : on_gpu) t.copy_(pinned, /*non_blocking=*/true);
  });
  const double bare_save = Seconds([&] {
    torch::Tensor to = pinned;
    for (const torch::Tensor& t : on_gpu) to.copy_(t, /*non_blocking=*/true);
  });

  Print("load_to_cuda_gb_per_s", bytes / load / 1e9);
  Print("save_from_cuda_gb_per_s", bytes / save / 1e9);
  Print("pinned_copy_to_cuda_gb_per_s", bytes / bare_load / 1e9);
  Print("pinned_copy_from_cuda_gb_per_s", bytes / bare_save / 1e9);
  Print("load_to_cuda_vs_pinned_copy", bare_load / load);
  Print("save_from_cuda_vs_pinned_copy", bare_save / save);
  if (torch_load > 0) Print("load_to_cuda_vs_torch_load", torch_load / load);
  return 0;
}
