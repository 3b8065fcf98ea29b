// The way to and from real GPUs, through torch. Skipped, by name, where there is none.
#include <ATen/detail/CUDAHooksInterface.h>

#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "client/torch/device/device_load.h"
#include "client/torch/device/device_memory.h"
#include "client/torch/device/device_save.h"
#include "tests/gpu/byte_lanes.h"
#include "tests/gpu/checks.h"

#define NEEDS_GPUS(count)                                                       \
  if (static_cast<int>(torch::cuda::device_count()) < (count))                  \
  GTEST_SKIP() << "no CUDA device, or too few: " << torch::cuda::device_count() \
               << " of " << (count)

namespace modelstore {
namespace {

using device::DeviceLoad;
using device::DeviceSave;

auto TestDeadline() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(60);
}

bool SameBits(const torch::Tensor& a, const torch::Tensor& b) {
  const torch::Tensor x = a.cpu().contiguous(), y = b.cpu().contiguous();
  return x.nbytes() == y.nbytes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

// Loads `values` to the GPU and compares.
void RoundTrip(int device, const std::vector<torch::Tensor>& values, size_t run_bytes) {
  device::DeviceRuntime& runtime = device::Runtime();
  std::vector<torch::Tensor> loaded;
  std::vector<support::Delivery> deliveries;
  for (const torch::Tensor& v : values) {
    loaded.push_back(runtime.Empty(v.sizes(), v.scalar_type(), device));
  }
  DeviceLoad load(runtime, device);
  for (size_t i = 0; i < values.size(); ++i) {
    deliveries.push_back({load.SinkFor(loaded[i]),
                          static_cast<const char*>(values[i].data_ptr()),
                          values[i].nbytes()});
  }
  EXPECT_EQ(support::DeliverAll(deliveries, run_bytes, 4), "");
  EXPECT_EQ(load.Finish(TestDeadline()), "");
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(runtime.DeviceOf(loaded[i]), device);
    EXPECT_TRUE(SameBits(loaded[i], values[i])) << "tensor " << i;
  }
}

TEST(Gpu, EveryTypeArrivesBitForBit) {
  NEEDS_GPUS(1);
  std::vector<torch::Tensor> values;
  for (const auto type :
       {torch::kBool, torch::kByte, torch::kShort, torch::kHalf, torch::kBFloat16,
        torch::kFloat, torch::kDouble, torch::kLong}) {
    values.push_back(torch::randint(0, 2, {1000, 37}, torch::kFloat).to(type));
  }
  values.push_back(torch::randn({100}, torch::kComplexFloat));
  values.push_back(torch::randn({}));
  RoundTrip(0, values, 1000);
}

TEST(Gpu, LargeTensorsPassThroughTheBoundedPool) {
  NEEDS_GPUS(1);
  std::vector<torch::Tensor> values;
  for (int i = 0; i < 4; ++i) values.push_back(torch::randn({64 << 20 >> 2}));
  RoundTrip(0, values, size_t{4} << 20);
}

TEST(Gpu, ALoadToTheSecondGpuTouchesNoOther) {
  NEEDS_GPUS(2);
  // First in the process, or GPU 0 has its context already.
  const bool fresh = !at::detail::getCUDAHooks().hasPrimaryContext(0);
  RoundTrip(1, {torch::randn({1 << 20})}, 1 << 20);
  if (!fresh) GTEST_SKIP() << "GPU 0 was in use before: run this test alone";
  EXPECT_FALSE(at::detail::getCUDAHooks().hasPrimaryContext(0));
}

TEST(Gpu, ASaveComesAfterTheKernelsThatWereQueued) {
  NEEDS_GPUS(1);
  device::DeviceRuntime& runtime = device::Runtime();
  const auto on_gpu = torch::TensorOptions(torch::kFloat).device(torch::kCUDA, 0);
  torch::Tensor a = torch::full({4096, 4096}, 1e-4, on_gpu);
  torch::Tensor target = torch::zeros({1 << 20}, on_gpu);
  // Some hundred milliseconds of work, and the value at its end.
  for (int i = 0; i < 200; ++i) a = torch::mm(a, a);
  target.fill_(2);
  DeviceSave save(runtime, 0);
  const auto source = save.SourceFor(target);
  save.Begin();
  const auto room = source->AllocateStaging(target.nbytes());
  EXPECT_EQ(source->Begin(0, target.nbytes(), room.get(), room), "");
  EXPECT_EQ(source->Wait(TestDeadline()), "");
  target.fill_(3);
  const auto* const values = reinterpret_cast<const float*>(room.get());
  for (int64_t i = 0; i < target.numel(); ++i) ASSERT_EQ(values[i], 2.0F);
}

TEST(Gpu, FreeMemoryFallsByWhatIsAllocated) {
  NEEDS_GPUS(1);
  const auto before = device::CudaMemory(0);
  ASSERT_TRUE(before.has_value());
  const torch::Tensor held =
      device::Runtime().Empty({int64_t{256} << 20}, torch::kByte, 0);
  const auto after = device::CudaMemory(0);
  EXPECT_GE(before->first - after->first, int64_t{255} << 20);
  EXPECT_EQ(before->second, after->second);
}

TEST(Gpu, TheGeneratorContinuesWhereItWas) {
  NEEDS_GPUS(1);
  const auto on_gpu = torch::TensorOptions(torch::kFloat).device(torch::kCUDA, 0);
  (void)torch::randn({3}, on_gpu);
  const torch::Tensor state = device::Runtime().RngState(0);
  const torch::Tensor want = torch::randn({100}, on_gpu);
  device::Runtime().SetRngState(0, state);
  EXPECT_TRUE(SameBits(torch::randn({100}, on_gpu), want));
}

}  // namespace
}  // namespace modelstore
