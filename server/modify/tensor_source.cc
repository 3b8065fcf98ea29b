#include "server/modify/tensor_source.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/numeric.h"
#include "proto/contract/weighted_sum.h"
#include "storage/api/chunk_cursor.h"

namespace modelstore::server::modify {
namespace {

// Elements per block of a computation: their sums in float64 take 256 KiB, which fits in
// a core's cache.
constexpr int64_t kBlockElements = int64_t{32} << 10;
constexpr int64_t kMaxElementBytes = 8;

int DepthOf(absl::Span<const SourcePtr> sources) {
  int depth = 0;
  for (const SourcePtr& source : sources) depth = std::max(depth, source->depth());
  return depth;
}

// The maximum and not the sum, because sources are visited one after another.
int64_t WorkingBytesOf(absl::Span<const SourcePtr> sources) {
  int64_t bytes = 0;
  for (const SourcePtr& source : sources) {
    bytes = std::max(bytes, source->working_bytes());
  }
  return bytes;
}

class StoredTensor final : public TensorSource {
 public:
  explicit StoredTensor(Stored stored) : stored_(std::move(stored)) {
    const auto& record = stored_.read->manifest().tensors(stored_.tensor);
    const int64_t element = ElementSize(static_cast<DType>(record.dtype()));
    for (const auto& piece : record.pieces()) {
      int64_t bytes = element;
      for (const int64_t size : piece.size()) bytes *= size;
      // Pieces tile the shape, so their sizes add up to the size of the tensor.
      size_bytes_ += bytes;
    }
  }

  int64_t size_bytes() const override { return size_bytes_; }
  int64_t read_bytes() const override { return size_bytes_; }
  const Stored* stored() const override { return &stored_; }

  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    std::call_once(opened_, [this] {
      start_ = std::make_unique<const absl::StatusOr<storage::ChunkCursor>>(
          storage::ChunkCursor::Open(stored_.read, stored_.tensor));
    });
    if (!start_->ok()) return start_->status();
    // A cursor is used by one thread: each visit moves a copy.
    storage::ChunkCursor cursor = **start_;
    cursor.Seek(begin);
    while (!cursor.done() && cursor.position() < end) {
      auto bytes = cursor.Peek();
      if (!bytes.ok()) return bytes.status();
      const absl::string_view wanted = bytes->substr(0, end - cursor.position());
      if (auto status = take(wanted); !status.ok()) return status;
      cursor.Advance(static_cast<int64_t>(wanted.size()));
    }
    return absl::OkStatus();
  }

 private:
  const Stored stored_;
  int64_t size_bytes_ = 0;
  // Cursor at the first byte, which each visit copies. Opened by the first visit, because
  // most tensors are shared and never read.
  mutable std::once_flag opened_;
  mutable std::unique_ptr<const absl::StatusOr<storage::ChunkCursor>> start_;
};

class Range final : public TensorSource {
 public:
  Range(SourcePtr of, int64_t begin, int64_t end)
      : of_(std::move(of)), begin_(begin), end_(end), depth_(of_->depth() + 1) {}
  int64_t size_bytes() const override { return end_ - begin_; }
  int64_t read_bytes() const override {
    // An estimate: a range of a computed source may read more or less.
    return of_->read_bytes() == 0 ? 0 : size_bytes();
  }
  int depth() const override { return depth_; }
  int64_t working_bytes() const override { return of_->working_bytes(); }
  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    return of_->Visit(begin_ + begin, begin_ + end, take);
  }

 private:
  const SourcePtr of_;
  const int64_t begin_;
  const int64_t end_;
  const int depth_;
};

class Concat final : public TensorSource {
 public:
  explicit Concat(std::vector<SourcePtr> parts) : parts_(std::move(parts)) {
    for (const SourcePtr& part : parts_) {
      size_bytes_ += part->size_bytes();
      read_bytes_ += part->read_bytes();
      ends_.push_back(size_bytes_);
    }
    depth_ = DepthOf(parts_) + 1;
    working_bytes_ = WorkingBytesOf(parts_);
  }
  int64_t size_bytes() const override { return size_bytes_; }
  int64_t read_bytes() const override { return read_bytes_; }
  int depth() const override { return depth_; }
  int64_t working_bytes() const override { return working_bytes_; }
  absl::Span<const SourcePtr> parts() const override { return parts_; }
  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    size_t part = std::upper_bound(ends_.begin(), ends_.end(), begin) - ends_.begin();
    for (; begin < end && part < parts_.size(); ++part) {
      const int64_t part_begin = ends_[part] - parts_[part]->size_bytes();
      const int64_t stop = std::min(end, ends_[part]);
      auto status = parts_[part]->Visit(begin - part_begin, stop - part_begin, take);
      if (!status.ok()) return status;
      begin = stop;
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<SourcePtr> parts_;
  // Offset in bytes of the end of each part.
  std::vector<int64_t> ends_;
  int64_t size_bytes_ = 0;
  // Cached, because a tensor may have thousands of parts.
  int64_t read_bytes_ = 0;
  int depth_ = 1;
  int64_t working_bytes_ = 0;
};

class CastTensor final : public TensorSource {
 public:
  CastTensor(SourcePtr of, DType from, DType to)
      : of_(std::move(of)), from_(from), to_(to), depth_(of_->depth() + 1) {}
  int64_t size_bytes() const override {
    return of_->size_bytes() / ElementSize(from_) * ElementSize(to_);
  }
  int64_t read_bytes() const override { return of_->read_bytes(); }
  int depth() const override { return depth_; }
  int64_t working_bytes() const override {
    return of_->working_bytes() + kBlockElements * kMaxElementBytes;
  }
  const TensorSource* cast_of() const override { return of_.get(); }
  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    const int64_t in = ElementSize(from_), out = ElementSize(to_);
    const int64_t most = std::min(kBlockElements, (end - begin) / out);
    if (most == 0) return absl::InternalError("a range ends within an element");
    // A view of the source may be longer than a block: it is converted in several steps.
    const auto block = std::make_unique_for_overwrite<char[]>(most * out);
    return of_->Visit(begin / out * in, end / out * in, [&](absl::string_view bytes) {
      while (!bytes.empty()) {
        const int64_t count = std::min(static_cast<int64_t>(bytes.size()) / in, most);
        auto status = Cast(from_, bytes.data(), to_, block.get(), count);
        if (status.ok()) status = take(absl::string_view(block.get(), count * out));
        if (!status.ok()) return status;
        bytes.remove_prefix(count * in);
      }
      return absl::OkStatus();
    });
  }

 private:
  const SourcePtr of_;
  const DType from_;
  const DType to_;
  const int depth_;
};

class AverageTensor final : public TensorSource {
 public:
  AverageTensor(std::vector<SourcePtr> of, std::vector<double> coefficients, DType dtype)
      : of_(std::move(of)),
        coefficients_(std::move(coefficients)),
        dtype_(dtype),
        depth_(DepthOf(of_) + 1) {}
  int64_t size_bytes() const override { return of_.front()->size_bytes(); }
  int64_t read_bytes() const override {
    int64_t bytes = 0;
    for (const SourcePtr& source : of_) bytes += source->read_bytes();
    return bytes;
  }
  int depth() const override { return depth_; }
  int64_t working_bytes() const override {
    return WorkingBytesOf(of_) + 2 * kBlockElements * kMaxElementBytes;
  }
  absl::Status DoVisit(int64_t begin, int64_t end, BytesCallback take) const override {
    const int64_t element = ElementSize(dtype_);
    const int64_t most = std::min(kBlockElements, (end - begin) / element);
    // For each block of elements, adds all sources in order and then rounds, so that
    // memory does not depend on the number of sources.
    const auto sums = std::make_unique_for_overwrite<double[]>(most);
    const auto block = std::make_unique_for_overwrite<char[]>(most * element);
    for (int64_t at = begin; at < end;) {
      const int64_t count = std::min(most, (end - at) / element);
      if (count == 0) return absl::InternalError("a range ends within an element");
      const int64_t stop = at + count * element;
      for (size_t s = 0; s < of_.size(); ++s) {
        double* next = sums.get();
        auto status = of_[s]->Visit(at, stop, [&](absl::string_view bytes) {
          const int64_t added = static_cast<int64_t>(bytes.size()) / element;
          double* to = std::exchange(next, next + added);
          return AddWeighted(dtype_, bytes.data(), coefficients_[s],
                             s == 0 ? Sums::kBegin : Sums::kAccumulate, to, added);
        });
        if (!status.ok()) return status;
      }
      auto status = RoundSums(sums.get(), dtype_, block.get(), count);
      if (status.ok()) status = take(absl::string_view(block.get(), count * element));
      if (!status.ok()) return status;
      at = stop;
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<SourcePtr> of_;
  const std::vector<double> coefficients_;
  const DType dtype_;
  const int depth_;
};

}  // namespace

absl::Status TensorSource::Visit(int64_t begin, int64_t end, BytesCallback take) const {
  if (begin < 0 || begin > end || end > size_bytes()) {
    return absl::InternalError(absl::StrCat("bytes ", begin, " to ", end,
                                            " were asked of a source of ", size_bytes()));
  }
  if (begin == end) return absl::OkStatus();
  // Counts the bytes, so that a source that produces too many or too few is an error and
  // never a wrong tensor.
  int64_t left = end - begin;
  auto status = DoVisit(begin, end, [&](absl::string_view bytes) {
    left -= static_cast<int64_t>(bytes.size());
    if (left < 0) return absl::InternalError("a source gives more than it was asked for");
    return take(bytes);
  });
  if (!status.ok() || left == 0) return status;
  return absl::InternalError(absl::StrCat("a source ends ", left, " bytes too early"));
}

const TensorSource& WithoutCasts(const TensorSource& source) {
  const TensorSource* of = &source;
  while (of->cast_of() != nullptr) of = of->cast_of();
  return *of;
}

SourcePtr StoredSource(std::shared_ptr<storage::Read> read, int tensor) {
  return std::make_shared<StoredTensor>(TensorSource::Stored{std::move(read), tensor});
}

SourcePtr RangeSource(SourcePtr of, int64_t begin, int64_t end) {
  if (begin == 0 && end == of->size_bytes()) return of;
  return std::make_shared<Range>(std::move(of), begin, end);
}

SourcePtr ConcatSource(std::vector<SourcePtr> parts) {
  return std::make_shared<Concat>(std::move(parts));
}

SourcePtr CastSource(SourcePtr of, DType from, DType to) {
  return std::make_shared<CastTensor>(std::move(of), from, to);
}

SourcePtr AverageSource(std::vector<SourcePtr> of, std::vector<double> coefficients,
                        DType dtype) {
  return std::make_shared<AverageTensor>(std::move(of), std::move(coefficients), dtype);
}

}  // namespace modelstore::server::modify
