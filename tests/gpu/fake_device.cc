#include "tests/gpu/fake_device.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace modelstore::support {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// How often an event is asked before it is over.
constexpr int kQueriesPerEvent = 3;
// What memory holds that nobody has written, or that was given back.
constexpr int kPoison = 0xDB;

void RunOnce(std::function<void()>& work) {
  if (work) std::exchange(work, nullptr)();
}

}  // namespace

// Its work is done in order, when an event behind it is asked for.
class FakeRuntime::Stream final : public device::CopyStream {
 public:
  Stream(FakeRuntime& runtime, std::deque<std::shared_ptr<Work>> before)
      : runtime_(runtime),
        queue_(std::make_shared<Items>(before.begin(), before.end())) {}

  void Copy(void* to, const void* from, size_t bytes, Direction) override {
    const Lock lock(runtime_.mutex_);
    ++runtime_.copies_;
    if (runtime_.faults_.copy > 0 && --runtime_.faults_.copy == 0) {
      TORCH_CHECK(false, "fake device: copy failed");
    }
    queue_->push_back(
        std::make_shared<Work>([to, from, bytes] { std::memcpy(to, from, bytes); }));
  }

  std::unique_ptr<Event> Record() override {
    return std::make_unique<Recorded>(runtime_, queue_, queue_->size());
  }

 private:
  using Items = std::vector<std::shared_ptr<Work>>;

  class Recorded final : public Event {
   public:
    Recorded(FakeRuntime& runtime, std::shared_ptr<Items> queue, size_t end)
        : runtime_(runtime), queue_(std::move(queue)), end_(end) {}
    bool Done() override {
      const Lock lock(runtime_.mutex_);
      if (runtime_.faults_.stuck || ++asked_ < kQueriesPerEvent) return false;
      for (size_t i = 0; i < end_; ++i) RunOnce(*(*queue_)[i]);
      return true;
    }

   private:
    FakeRuntime& runtime_;
    const std::shared_ptr<Items> queue_;
    const size_t end_;
    int asked_ = 0;
  };

  FakeRuntime& runtime_;
  const std::shared_ptr<Items> queue_;
};

FakeRuntime::FakeRuntime(int devices) : devices_(static_cast<size_t>(devices)) {
  for (int i = 0; i < devices; ++i) {
    devices_[i].rng = torch::full({16}, 10 + i, torch::kByte);
  }
}

FakeRuntime::~FakeRuntime() = default;

FakeRuntime::Device& FakeRuntime::Touch(int device) {
  touched_.insert(device);
  return devices_.at(static_cast<size_t>(device));
}

void FakeRuntime::SetFaults(Faults faults) {
  const Lock lock(mutex_);
  faults_ = faults;
}

void FakeRuntime::SetCapacity(int device, int64_t bytes) {
  const Lock lock(mutex_);
  devices_[device].capacity = bytes;
}

void FakeRuntime::Queue(int device, std::function<void()> work) {
  const Lock lock(mutex_);
  devices_[device].queued.push_back(std::make_shared<Work>(std::move(work)));
}

void FakeRuntime::RunQueued(int device) {
  const Lock lock(mutex_);
  for (const auto& work : devices_[device].queued) RunOnce(*work);
  devices_[device].queued.clear();
}

int64_t FakeRuntime::live_bytes(int device) const {
  const Lock lock(mutex_);
  return devices_[device].live;
}

int64_t FakeRuntime::max_bytes(int device) const {
  const Lock lock(mutex_);
  return devices_[device].most;
}

int64_t FakeRuntime::allocations() const {
  const Lock lock(mutex_);
  return allocations_;
}

int64_t FakeRuntime::live_pinned() const {
  const Lock lock(mutex_);
  return pinned_;
}

int64_t FakeRuntime::max_pinned() const {
  const Lock lock(mutex_);
  return max_pinned_;
}

int64_t FakeRuntime::copies() const {
  const Lock lock(mutex_);
  return copies_;
}

std::set<int> FakeRuntime::touched() const {
  const Lock lock(mutex_);
  return touched_;
}

int FakeRuntime::DeviceOf(const torch::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage()) return -1;
  // The storage's, which an empty tensor has too.
  const auto* const data = static_cast<const char*>(tensor.storage().data_ptr().get());
  const Lock lock(mutex_);
  const auto it = memory_.find(data);
  return it == memory_.end() ? -1 : it->second;
}

std::optional<FakeRuntime::Memory> FakeRuntime::MemoryOf(int device) {
  const Lock lock(mutex_);
  const Device& d = Touch(device);
  return Memory{d.capacity - d.live, d.capacity};
}

torch::Tensor FakeRuntime::Empty(c10::IntArrayRef shape, torch::ScalarType type,
                                 int device) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(type));
  for (const int64_t size : shape) bytes *= size;
  const Lock lock(mutex_);
  Device& d = Touch(device);
  ++allocations_;
  const bool fails = faults_.allocation > 0 && --faults_.allocation == 0;
  if (fails || d.live + bytes > d.capacity) {
    TORCH_CHECK_WITH(OutOfMemoryError, false, "fake device: out of memory");
  }
  auto* const data = new char[static_cast<size_t>(std::max<int64_t>(bytes, 1))];
  std::memset(data, kPoison, static_cast<size_t>(bytes));
  d.live += bytes;
  d.most = std::max(d.most, d.live);
  memory_[data] = device;
  return torch::from_blob(
      data, shape,
      [this, device, bytes](void* p) { Free(device, static_cast<char*>(p), bytes); },
      type);
}

void FakeRuntime::Free(int device, char* data, int64_t bytes) {
  const Lock lock(mutex_);
  devices_[device].live -= bytes;
  memory_.erase(data);
  delete[] data;
}

std::shared_ptr<char> FakeRuntime::AllocatePinned(size_t bytes, int device) {
  const Lock lock(mutex_);
  Touch(device);
  pinned_ += static_cast<int64_t>(bytes);
  max_pinned_ = std::max(max_pinned_, pinned_);
  auto* const data = new char[bytes];
  std::memset(data, kPoison, bytes);
  return std::shared_ptr<char>(data, [this, bytes](char* p) {
    const Lock relock(mutex_);
    pinned_ -= static_cast<int64_t>(bytes);
    // Whoever still reads it reads nonsense.
    std::memset(p, kPoison, bytes);
    delete[] p;
  });
}

std::unique_ptr<device::CopyStream> FakeRuntime::OpenStream(int device) {
  const Lock lock(mutex_);
  return std::make_unique<Stream>(*this, Touch(device).queued);
}

torch::Tensor FakeRuntime::RngState(int device) {
  const Lock lock(mutex_);
  return Touch(device).rng.clone();
}

void FakeRuntime::SetRngState(int device, const torch::Tensor& state) {
  const Lock lock(mutex_);
  Touch(device).rng = state.clone();
}

}  // namespace modelstore::support
