#include "server/modify/lora_tensor.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/contract/weighted_sum.h"

namespace modelstore::server::modify {
namespace {

// Elements of B that are held in float64 at once: as many rows as fit, but at least one.
constexpr int64_t kBlockElements = int64_t{64} << 10;
// Elements of the largest range that Visit() gets: a chunk of 512 KiB with elements of
// two bytes.
constexpr int64_t kChunkElements = int64_t{256} << 10;

// Reads `count` rows of a factor as float64.
absl::StatusOr<std::vector<double>> ReadRows(const LoraFactor& factor, int64_t first,
                                             int64_t count) {
  std::vector<double> values(count * factor.columns);
  double* next = values.data();
  const int64_t element = ElementSize(factor.dtype), row = factor.columns * element;
  auto s =
      factor.source->Visit(first * row, (first + count) * row, [&](absl::string_view b) {
        const int64_t read = static_cast<int64_t>(b.size()) / element;
        double* to = std::exchange(next, next + read);
        return AddWeighted(factor.dtype, b.data(), 1, Sums::kBegin, to, read);
      });
  if (!s.ok()) return s;
  return values;
}

// W + scale * (B * A), each element summed over A's rows in order in float64 and
// rounded once.
// See LoraSource(). A visit first computes the part of B * A for the range into `delta`,
// and then adds it to the weight.
class LoraTensor final : public TensorSource {
 public:
  LoraTensor(SourcePtr weight, DType dtype, LoraFactor a, LoraFactor b, double scale,
             std::shared_ptr<LoraFactors> factors)
      : weight_(std::move(weight)),
        dtype_(dtype),
        a_(std::move(a)),
        b_(std::move(b)),
        scale_(scale),
        factors_(std::move(factors)),
        id_(factors_->NewId()),
        depth_(std::max({weight_->depth(), a_.source->depth(), b_.source->depth()}) + 1) {
  }

  int64_t size_bytes() const override { return weight_->size_bytes(); }
  int64_t read_bytes() const override {
    return weight_->read_bytes() + a_.source->read_bytes() + b_.source->read_bytes();
  }
  int depth() const override { return depth_; }
  // All of A, a block of B, and three vectors of the size of a chunk.
  int64_t working_bytes() const override {
    const int64_t block = std::max(kBlockElements, a_.rows);
    return std::max({weight_->working_bytes(), a_.source->working_bytes(),
                     b_.source->working_bytes()}) +
           (a_.rows * a_.columns + block + 3 * kChunkElements) *
               static_cast<int64_t>(sizeof(double));
  }

  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    const int64_t element = ElementSize(dtype_);
    auto a = FactorA();
    if (!a.ok()) return a.status();
    const int64_t first = begin / element, last = end / element;
    std::vector<double> delta(last - first, 0.0);
    if (auto s = AddProduct(**a, first, last, delta); !s.ok()) return s;
    std::vector<double> sums;
    std::string block;
    // The weight arrives in views of any length; `added` follows them.
    const double* added = delta.data();
    return weight_->Visit(begin, end, [&](absl::string_view bytes) {
      const int64_t count = static_cast<int64_t>(bytes.size()) / element;
      sums.resize(count);
      block.resize(bytes.size());
      auto s = AddWeighted(dtype_, bytes.data(), 1, Sums::kBegin, sums.data(), count);
      if (!s.ok()) return s;
      for (int64_t i = 0; i < count; ++i) sums[i] += scale_ * added[i];
      added += count;
      if (s = RoundSums(sums.data(), dtype_, block.data(), count); !s.ok()) return s;
      return take(block);
    });
  }

 private:
  // Factor A in float64, from the cache or from its source. The first thread reads it
  // while others wait for it, so that it is read once.
  absl::StatusOr<LoraFactors::Values> FactorA() const {
    MutexLock lock(mutex_);
    LoraFactors::Values values = factors_->Find(id_);
    if (values != nullptr) return values;
    auto read = ReadRows(a_, 0, a_.rows);
    if (!read.ok()) return read.status();
    values = std::make_shared<const std::vector<double>>(*std::move(read));
    factors_->Add(id_, values);
    return values;
  }

  // Elements [first, last) of B * A, row-major.
  absl::Status AddProduct(const std::vector<double>& a, int64_t first, int64_t last,
                          std::vector<double>& delta) const {
    const int64_t columns = a_.columns, rank = a_.rows;
    // The range may begin and end within a row.
    const int64_t end_row = (last - 1) / columns + 1;
    const int64_t most = std::max<int64_t>(1, kBlockElements / rank);
    for (int64_t row = first / columns; row < end_row;) {
      const int64_t rows = std::min(most, end_row - row);
      auto b = ReadRows(b_, row, rows);
      if (!b.ok()) return b.status();
      for (int64_t i = 0; i < rows; ++i, ++row) {
        const int64_t row_begin = row * columns;
        const int64_t from = std::max(first, row_begin);
        const int64_t count = std::min(last, row_begin + columns) - from;
        AddRow(b->data() + i * rank, a.data() + (from - row_begin), count,
               delta.data() + (from - first));
      }
    }
    return absl::OkStatus();
  }

  // `out` is a part of a row of B * A, `in` the same part of A's first row.
  // Adds one part of a row of B * A: the sum of the rows of A, each times a factor from
  // B.
  void AddRow(const double* factors, const double* in, int64_t count,
              double* __restrict__ out) const {
    for (int64_t r = 0; r < a_.rows; ++r, in += a_.columns) {
      const double factor = factors[r];
      for (int64_t i = 0; i < count; ++i) out[i] += factor * in[i];
    }
  }

  const SourcePtr weight_;
  const DType dtype_;
  const LoraFactor a_;
  const LoraFactor b_;
  const double scale_;
  const std::shared_ptr<LoraFactors> factors_;
  const int64_t id_;
  const int depth_;
  // Held while A is read. A may be computed by another LoraTensor, whose mutex is then
  // taken while this one is held; sources form no cycles, so there is no deadlock. The
  // mutex of LoraFactors is taken last.
  mutable Mutex mutex_;
};

int64_t BytesOf(const LoraFactors::Values& values) {
  return static_cast<int64_t>(values->size() * sizeof(double));
}

}  // namespace

int64_t LoraFactors::NewId() {
  MutexLock lock(mutex_);
  return ++last_id_;
}

int64_t LoraFactors::ExpectGrowth(int64_t bytes) {
  MutexLock lock(mutex_);
  const int64_t grown = std::min(bytes, kMaxBytes - expected_bytes_);
  expected_bytes_ += grown;
  return grown;
}

LoraFactors::Values LoraFactors::Find(int64_t id) {
  MutexLock lock(mutex_);
  auto held = held_.find(id);
  return held == held_.end() ? nullptr : held->second;
}

void LoraFactors::Add(int64_t id, Values values) {
  MutexLock lock(mutex_);
  held_bytes_ += BytesOf(values);
  held_.emplace(id, std::move(values));
  order_.push_back(id);
  while (held_bytes_ > kMaxBytes) {
    auto oldest = held_.find(order_.front());
    held_bytes_ -= BytesOf(oldest->second);
    held_.erase(oldest);
    order_.pop_front();
  }
}

int64_t LoraFactors::held_bytes() {
  MutexLock lock(mutex_);
  return held_bytes_;
}

SourcePtr LoraSource(SourcePtr weight, DType dtype, LoraFactor a, LoraFactor b,
                     double scale, std::shared_ptr<LoraFactors> factors) {
  return std::make_shared<LoraTensor>(std::move(weight), dtype, std::move(a),
                                      std::move(b), scale, std::move(factors));
}

}  // namespace modelstore::server::modify
