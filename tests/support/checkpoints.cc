#include "tests/support/checkpoints.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"

namespace modelstore::support {
namespace {

Deadline TestDeadline() { return After(std::chrono::seconds(120)); }

}  // namespace

TensorSet::TensorSet(const TensorSetParams& params) {
  constexpr DType kTypes[] = {DType::kFloat32, DType::kFloat16, DType::kInt64,
                              DType::kBfloat16, DType::kUint8};
  std::mt19937_64 random(params.seed);
  // Weights of 1 to 16 mix small tensors with large ones.
  std::vector<int64_t> weights;
  int64_t sum = 0;
  for (int i = 0; i < params.tensors; ++i) {
    weights.push_back(int64_t{1} << (random() % 5));
    sum += weights.back();
  }
  for (int i = 0; i < params.tensors; ++i) {
    TensorInfo info;
    info.section = i % 4 == 3 ? "optimizer" : "model";
    info.key = absl::StrCat("layer.", i, ".weight");
    info.dtype = kTypes[random() % 5];
    const int64_t rows = std::max<int64_t>(
        1, params.bytes * weights[i] / sum / (4 * ElementSize(info.dtype)));
    info.shape = {rows, 4};
    Add(info, RandomBytes(random(), rows * 4 * ElementSize(info.dtype)));
  }
  TensorInfo extra;
  extra.section = "extra";
  extra.key = "scalar";
  extra.dtype = DType::kFloat64;
  Add(extra, RandomBytes(random(), 8));
  extra.key = "empty";
  extra.shape = {3, 0};
  Add(extra, "");
}

void TensorSet::Add(TensorInfo info, std::string bytes) {
  info.size_bytes = static_cast<int64_t>(bytes.size());
  entries_.push_back(
      {std::move(info), std::make_shared<const std::string>(std::move(bytes))});
}

TensorSet TensorSet::WithChanged(size_t index, uint64_t seed) const {
  TensorSet changed = *this;
  Entry& entry = changed.entries_[index];
  entry.bytes =
      std::make_shared<const std::string>(RandomBytes(seed, entry.info.size_bytes));
  return changed;
}

int64_t TensorSet::total_bytes() const {
  int64_t sum = 0;
  for (const Entry& e : entries_) sum += e.info.size_bytes;
  return sum;
}

SaveContent TensorSet::Content() const {
  SaveContent content;
  for (const Entry& e : entries_) {
    TensorView view;
    view.info = e.info;
    view.data = e.bytes->data();
    view.owner = e.bytes;
    view.immutable = true;
    content.tensors.push_back(std::move(view));
  }
  return content;
}

absl::StatusOr<Client> ConnectTo(const std::string& address,
                                 std::chrono::milliseconds retry,
                                 std::chrono::milliseconds stall) {
  ConnectOptions options;
  options.retry_timeout = retry;
  options.stall_timeout = stall;
  return Client::Connect(address, options);
}

absl::StatusOr<CheckpointInfo> Save(Client& client, const std::string& parent,
                                    const TensorSet& tensors, SaveOptions options) {
  return client.SaveAsync(parent, tensors.Content(), std::move(options))
      .Durable(TestDeadline());
}

absl::StatusOr<LoadedTensors> Load(Client& client, const std::string& name,
                                   LoadOptions options) {
  absl::StatusOr<LoadPlan> plan = client.PlanLoad(name, std::move(options));
  if (!plan.ok()) return plan.status();
  LoadedTensors loaded;
  for (size_t i = 0; i < plan->tensors().size(); ++i) {
    const TensorInfo& info = plan->tensors()[i];
    // Prefilled, so that a byte that was not written differs from a zero.
    std::string& bytes = loaded[absl::StrCat(info.section, ":", info.key)];
    bytes.assign(info.size_bytes, '\xA5');
    absl::Status s = plan->Bind(i, {bytes.data(), bytes.size(), nullptr});
    if (!s.ok()) return s;
  }
  if (absl::Status s = plan->Run(TestDeadline()); !s.ok()) return s;
  return loaded;
}

absl::Status Compare(const LoadedTensors& loaded, const TensorSet& expected) {
  if (loaded.size() != expected.entries().size()) {
    return absl::DataLossError(absl::StrCat("loaded ", loaded.size(), " tensors of ",
                                            expected.entries().size()));
  }
  for (const TensorSet::Entry& e : expected.entries()) {
    const std::string name = absl::StrCat(e.info.section, ":", e.info.key);
    const auto it = loaded.find(name);
    if (it == loaded.end()) return absl::DataLossError(absl::StrCat(name, " is missing"));
    if (it->second != *e.bytes) {
      return absl::DataLossError(absl::StrCat(name, " differs from what was saved"));
    }
  }
  return absl::OkStatus();
}

absl::Status Verify(Client& client, const std::string& name, const TensorSet& expected) {
  absl::StatusOr<LoadedTensors> loaded = Load(client, name);
  if (!loaded.ok()) return loaded.status();
  return Compare(*loaded, expected);
}

}  // namespace modelstore::support
