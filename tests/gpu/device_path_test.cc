// The way to and from a device, over devices that are none.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "client/torch/device/device_load.h"
#include "client/torch/device/device_save.h"
#include "tests/gpu/byte_lanes.h"
#include "tests/gpu/checks.h"
#include "tests/gpu/fake_device.h"

namespace modelstore {
namespace {

using device::CopyStream;
using device::DeviceLoad;
using device::DeviceSave;
using support::DeliverAll;
using support::Delivery;
using support::FakeRuntime;

auto In(int milliseconds) {
  return std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
}

std::string Bytes(const torch::Tensor& tensor) {
  return std::string(static_cast<const char*>(tensor.data_ptr()), tensor.nbytes());
}

std::vector<torch::Tensor> Values(int count) {
  std::vector<torch::Tensor> values;
  for (int i = 0; i < count; ++i) {
    values.push_back(torch::randint(0, 256, {1 + i * 40'000}, torch::kByte));
  }
  return values;
}

// Tensors of device 1 with room for `values`, and how to fill them.
struct Load {
  Load(FakeRuntime& fake, const std::vector<torch::Tensor>& values, int slots) {
    for (const torch::Tensor& v : values) {
      tensors.push_back(fake.Empty(v.sizes(), v.scalar_type(), 1));
    }
    load = std::make_unique<DeviceLoad>(fake, 1, slots);
    for (size_t i = 0; i < values.size(); ++i) {
      deliveries.push_back({load->SinkFor(tensors[i]),
                            static_cast<const char*>(values[i].data_ptr()),
                            values[i].nbytes()});
    }
  }

  std::vector<torch::Tensor> tensors;
  std::unique_ptr<DeviceLoad> load;
  std::vector<Delivery> deliveries;
};

TEST(FakeDevice, AReusedBufferCorruptsWhatWasNotCopiedYet) {
  FakeRuntime fake(1);
  const torch::Tensor target = fake.Empty({4}, torch::kByte, 0);
  const auto pinned = fake.AllocatePinned(4, 0);
  const auto stream = fake.OpenStream(0);
  std::memset(pinned.get(), 1, 4);
  stream->Copy(target.data_ptr(), pinned.get(), 4, CopyStream::Direction::kToDevice);
  const auto copied = stream->Record();
  std::memset(pinned.get(), 2, 4);  // nobody has asked for the event
  while (!copied->Done()) {
  }
  EXPECT_EQ(Bytes(target), std::string(4, 2)) << "the fake would hide a reuse too early";
}

TEST(DevicePath, WhatSeveralThreadsDeliverThroughFewSlotsArrives) {
  FakeRuntime fake(2);
  const std::vector<torch::Tensor> values = Values(40);
  for (const int slots : {1, 2, 5}) {
    Load load(fake, values, slots);
    EXPECT_EQ(DeliverAll(load.deliveries, 10'007, 4), "");
    EXPECT_EQ(load.load->Finish(In(30'000)), "");
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_TRUE(Bytes(load.tensors[i]) == Bytes(values[i]))
          << "tensor " << i << " with " << slots << " slots";
    }
    EXPECT_LE(fake.max_pinned(),
              slots * static_cast<int64_t>(device::PinnedPool::kSlotBytes));
  }
  EXPECT_GT(fake.copies(), 1000);
  EXPECT_EQ(fake.live_bytes(1), 0);
  EXPECT_EQ(fake.live_pinned(), 0);
}

TEST(DevicePath, NoOtherDeviceIsTouched) {
  FakeRuntime fake(4);
  const std::vector<torch::Tensor> values = Values(5);
  Load load(fake, values, 2);
  EXPECT_EQ(DeliverAll(load.deliveries, 4096, 2), "");
  EXPECT_EQ(load.load->Finish(In(30'000)), "");
  EXPECT_TRUE(fake.touched() == std::set<int>{1});
}

TEST(DevicePath, ASlotThatIsDroppedIsFreeAgain) {
  FakeRuntime fake(2);
  const std::vector<torch::Tensor> values = Values(2);
  Load load(fake, values, 1);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(load.deliveries[1].sink->Reserve(100, In(1000)).data != nullptr);
  }
  const ByteSink::Slot held = load.deliveries[1].sink->Reserve(100, In(1000));
  EXPECT_TRUE(load.deliveries[1].sink->Reserve(100, In(20)).data == nullptr);
}

TEST(DevicePath, BytesBeyondTheTensorAreRefused) {
  FakeRuntime fake(2);
  Load load(fake, {torch::zeros({100}, torch::kByte)}, 1);
  ByteSink& sink = *load.deliveries[0].sink;
  EXPECT_NE(sink.Deliver(sink.Reserve(60, In(1000)), 60, 50), "");
  EXPECT_TRUE(sink.Reserve(ByteSink::kMaxBytes + 1, In(10)).data == nullptr);
  EXPECT_EQ(fake.copies(), 0);
}

TEST(DevicePath, AFailedCopyIsReportedByTheDeliveryAndAtTheEnd) {
  FakeRuntime fake(2);
  const std::vector<torch::Tensor> values = Values(3);
  Load load(fake, values, 2);
  fake.SetFaults({.copy = 3});
  EXPECT_NE(DeliverAll(load.deliveries, 8192, 1).find("copy failed"), std::string::npos);
  EXPECT_NE(load.load->Finish(In(30'000)).find("copy failed"), std::string::npos);
}

TEST(DevicePath, ADeviceThatDoesNotAnswerIsReportedInTime) {
  FakeRuntime fake(2);
  const std::vector<torch::Tensor> values = Values(3);
  Load load(fake, values, 1);
  fake.SetFaults({.stuck = true});
  ByteSink& sink = *load.deliveries[2].sink;
  EXPECT_EQ(sink.Deliver(sink.Reserve(10, In(1000)), 10, 0), "");
  EXPECT_TRUE(sink.Reserve(10, In(20)).data == nullptr) << "the slot is in use";
  EXPECT_NE(load.load->Finish(In(20)), "");
  fake.SetFaults({});
}

TEST(DevicePath, AThousandLoadsThatFailHalfWayLeaveNoMemoryBehind) {
  FakeRuntime fake(2);
  const std::vector<torch::Tensor> values = Values(6);
  std::mt19937_64 random(17);
  int failed = 0;
  for (int i = 0; i < 1000; ++i) {
    try {
      fake.SetFaults({.allocation = static_cast<int64_t>(random() % 12),
                      .copy = static_cast<int64_t>(random() % 60)});
      Load load(fake, values, 2);
      const std::string error = DeliverAll(load.deliveries, 20'000, 2);
      // Some are given up without waiting for anything.
      if (!error.empty() || i % 3 == 0) {
        ++failed;
      } else {
        EXPECT_EQ(load.load->Finish(In(30'000)), "");
      }
    } catch (const c10::OutOfMemoryError&) {
      ++failed;
    }
    ASSERT_EQ(fake.live_bytes(1), 0) << "after load " << i;
    ASSERT_EQ(fake.live_pinned(), 0) << "after load " << i;
  }
  EXPECT_GT(failed, 500);
  std::printf("loads that failed half way: %d of 1000\n", failed);
}

// Reads all of `tensor` by way of `source`.
std::string ReadAll(ByteSource& source, size_t bytes, size_t run_bytes) {
  const std::shared_ptr<char> room = source.AllocateStaging(bytes);
  for (size_t at = 0; at < bytes; at += run_bytes) {
    const std::string error = source.Begin(
        static_cast<int64_t>(at), std::min(run_bytes, bytes - at), room.get() + at, room);
    if (!error.empty()) return error;
  }
  const std::string error = source.Wait(In(30'000));
  return error.empty() ? std::string(room.get(), bytes) : error;
}

TEST(DevicePath, ASaveReadsWhatTheQueuedWorkMakesAndNothingLater) {
  FakeRuntime fake(2);
  torch::Tensor tensor = fake.Empty({1000}, torch::kByte, 1);
  tensor.fill_(1);
  fake.Queue(1, [tensor]() mutable { tensor.fill_(2); });
  DeviceSave save(fake, 1);
  const auto source = save.SourceFor(tensor);
  EXPECT_NE(ReadAll(*source, 1000, 64), std::string(1000, 2)) << "read before Begin()";
  save.Begin();
  fake.Queue(1, [tensor]() mutable { tensor.fill_(3); });
  EXPECT_TRUE(ReadAll(*source, 1000, 64) == std::string(1000, 2));
  fake.RunQueued(1);
  EXPECT_TRUE(fake.touched() == std::set<int>{1});
}

TEST(DevicePath, ASaveKeepsItsTensorUntilItIsRead) {
  FakeRuntime fake(2);
  DeviceSave save(fake, 1);
  std::shared_ptr<ByteSource> source;
  {
    torch::Tensor tensor = fake.Empty({500}, torch::kByte, 1);
    tensor.fill_(7);
    source = save.SourceFor(tensor);
    save.Begin();
  }
  EXPECT_EQ(fake.live_bytes(1), 500);
  EXPECT_TRUE(ReadAll(*source, 500, 100) == std::string(500, 7));
  source.reset();
  EXPECT_EQ(fake.live_bytes(1), 0);
  EXPECT_EQ(fake.live_pinned(), 0);
}

TEST(DevicePath, AFailedReadIsReported) {
  FakeRuntime fake(1);
  DeviceSave save(fake, 0);
  const auto source = save.SourceFor(fake.Empty({500}, torch::kByte, 0));
  save.Begin();
  fake.SetFaults({.copy = 2});
  EXPECT_NE(ReadAll(*source, 500, 100).find("copy failed"), std::string::npos);
  fake.SetFaults({.stuck = true});
  const auto room = source->AllocateStaging(10);
  EXPECT_EQ(source->Begin(0, 10, room.get(), room), "");
  EXPECT_NE(source->Wait(In(20)), "");
  fake.SetFaults({});
}

}  // namespace
}  // namespace modelstore
