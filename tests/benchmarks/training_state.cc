#include "tests/benchmarks/training_state.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "modelstore/torch.h"
#include "tests/benchmarks/machine.h"

namespace modelstore::bench {
namespace {

constexpr int kTensors = 150;
constexpr double kSmallest = 1024;       // elements: 4 KiB
constexpr double kLargest = 25'000'000;  // elements: 100 MB

}  // namespace

std::vector<int64_t> StateShape(int64_t total_bytes) {
  const double total = static_cast<double>(total_bytes) / 4;
  const double largest = std::min(kLargest, total / 10);
  // size(i) = smallest * (largest / smallest) ^ (i / last) ^ p; the larger p, the
  // fewer large ones. Find the p that gives the total.
  const auto sizes = [&](double p) {
    std::vector<int64_t> out;
    for (int i = 0; i < kTensors; ++i) {
      const double x = std::pow(static_cast<double>(i) / (kTensors - 1), p);
      out.push_back(static_cast<int64_t>(kSmallest * std::pow(largest / kSmallest, x)));
    }
    return out;
  };
  const auto sum = [](const std::vector<int64_t>& v) {
    double s = 0;
    for (int64_t n : v) s += static_cast<double>(n);
    return s;
  };
  double low = 0.05, high = 50;
  for (int i = 0; i < 60; ++i) {
    const double p = (low + high) / 2;
    (sum(sizes(p)) > total ? low : high) = p;
  }
  std::vector<int64_t> elements = sizes(high);
  // One tensor of 1 % of the bytes, for the resave, and the rounding.
  auto one_percent =
      std::min_element(elements.begin(), elements.end(), [&](int64_t a, int64_t b) {
        return std::fabs(static_cast<double>(a) - total / 100) <
               std::fabs(static_cast<double>(b) - total / 100);
      });
  *one_percent = static_cast<int64_t>(total / 100);
  elements[kTensors - 2] += static_cast<int64_t>(total - sum(elements));
  return elements;
}

struct TrainingState::Impl {
  std::shared_ptr<torch::nn::Module> module = std::make_shared<torch::nn::Module>();
  std::vector<torch::Tensor> tensors;
  SaveArgs Args() const {
    return {.module = module.get(), .metadata = {.epoch = 1, .loss = 0.5}};
  }
};

TrainingState::TrainingState(const std::vector<int64_t>& elements)
    : impl_(std::make_unique<Impl>()) {
  torch::manual_seed(1);
  for (size_t i = 0; i < elements.size(); ++i) {
    impl_->tensors.push_back(impl_->module->register_parameter(
        absl::StrCat("t", i), torch::randn({elements[i]}), /*requires_grad=*/false));
  }
}

TrainingState::~TrainingState() = default;

int64_t TrainingState::total_bytes() const {
  int64_t total = 0;
  for (const torch::Tensor& t : impl_->tensors) total += t.numel() * 4;
  return total;
}

int64_t TrainingState::ChangeOne(int64_t bytes) {
  torch::Tensor& nearest = *std::min_element(
      impl_->tensors.begin(), impl_->tensors.end(),
      [bytes](const torch::Tensor& a, const torch::Tensor& b) {
        return std::llabs(a.numel() * 4 - bytes) < std::llabs(b.numel() * 4 - bytes);
      });
  nearest.normal_();
  return nearest.numel() * 4;
}

void TrainingState::ChangeAll() {
  for (torch::Tensor& t : impl_->tensors) t.mul_(1.001f).add_(0.001f);
}

absl::StatusOr<CheckpointInfo> TrainingState::Save(Client& client,
                                                   const std::string& parent) {
  return SaveCheckpoint(client, parent, impl_->Args());
}

SaveHandle TrainingState::SaveAsync(Client& client, const std::string& parent) {
  return SaveCheckpointAsync(client, parent, impl_->Args());
}

absl::Status TrainingState::Load(Client& client, const std::string& name) {
  return LoadCheckpoint(client, name, {.module = impl_->module.get()}).status;
}

absl::StatusOr<double> TrainingState::LoadFresh(Client& client, const std::string& name) {
  StateDict fresh;
  Stopwatch watch;
  LoadResult result = LoadCheckpoint(client, name, {.state_dict = &fresh});
  const double seconds = watch.seconds();
  if (!result.status.ok()) return result.status;
  if (fresh.size() != impl_->tensors.size()) {
    return absl::DataLossError("a fresh load brought another number of tensors");
  }
  return seconds;
}

absl::Status TrainingState::VerifyLoad(Client& client, const std::string& name) {
  std::vector<torch::Tensor> before;
  for (torch::Tensor& t : impl_->tensors) {
    before.push_back(t.detach().clone());
    t.zero_();
  }
  if (absl::Status s = Load(client, name); !s.ok()) return s;
  for (size_t i = 0; i < before.size(); ++i) {
    if (!torch::equal(before[i], impl_->tensors[i])) {
      return absl::DataLossError(absl::StrCat("tensor t", i, " came back changed"));
    }
  }
  return absl::OkStatus();
}

void TrainingState::Multiply(int64_t times) {
  static const torch::Tensor matrix = torch::randn({256, 256});
  torch::Tensor result = torch::empty({256, 256});
  for (int64_t i = 0; i < times; ++i) torch::mm_out(result, matrix, matrix);
}

int TrainingState::Threads() { return torch::get_num_threads(); }
void TrainingState::SetThreads(int threads) { torch::set_num_threads(threads); }

std::string TrainingState::LibTorchVersion() { return TORCH_VERSION; }

}  // namespace modelstore::bench
