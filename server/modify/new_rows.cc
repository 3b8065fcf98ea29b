#include "server/modify/new_rows.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/contract/numeric.h"
#include "server/modify/repeat_source.h"

namespace modelstore::server::modify {
namespace {

using Resize = v1::Edit::ResizeOutput;

// Beyond this many runs, rows are no longer tracked, and optimizer state is reset.
constexpr size_t kMaxFollowedRuns = 65'536;
// Maximum number of bytes that NEW_ROWS_MEAN reads before the edit is accepted: some
// seconds.
constexpr int64_t kMaxMeanBytes = int64_t{16} << 30;

// Appends a run. Merges it with the last run if its rows follow those of that run.
void AddRun(const RowRun& run, std::vector<RowRun>& rows) {
  if (!rows.empty()) {
    RowRun& last = rows.back();
    const bool follows = run.is_new()
                             ? last.is_new()
                             : !last.is_new() && last.first + last.count == run.first;
    if (follows) {
      last.count += run.count;
      return;
    }
  }
  rows.push_back(run);
}

}  // namespace

void AddRow(int64_t row, std::vector<RowRun>& rows) { AddRun({row, 1}, rows); }

std::optional<std::vector<RowRun>> ComposeRows(const std::vector<RowRun>& of,
                                               const std::vector<RowRun>& rows) {
  // Ends of the runs of `of`, in rows of the tensor that `of` has made.
  std::vector<int64_t> ends;
  int64_t end = 0;
  for (const RowRun& run : of) ends.push_back(end += run.count);
  std::vector<RowRun> composed;
  for (const RowRun& run : rows) {
    if (run.is_new()) {
      AddRun(run, composed);
      continue;
    }
    size_t at = std::upper_bound(ends.begin(), ends.end(), run.first) - ends.begin();
    for (int64_t row = run.first, left = run.count; left > 0 && at < of.size(); ++at) {
      const int64_t within = row - (ends[at] - of[at].count);
      const int64_t count = std::min(left, of[at].count - within);
      AddRun({of[at].is_new() ? -1 : of[at].first + within, count}, composed);
      row += count;
      left -= count;
    }
    if (composed.size() > kMaxFollowedRuns) return std::nullopt;
  }
  return composed;
}

int64_t Product(const std::vector<int64_t>& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t d = begin; d < end; ++d) product *= shape[d];
  return product;
}

NewRowsOf::NewRowsOf(const WorkingTensor& tensor, Rows rows, int dimension,
                     SourcePtr drawn)
    : tensor_(tensor), rows_(std::move(rows)), drawn_(std::move(drawn)) {
  slices_ = Product(tensor.shape, 0, dimension);
  row_elements_ = Product(tensor.shape, dimension + 1, tensor.shape.size());
  row_bytes_ = row_elements_ * ElementSize(tensor.dtype);
}

absl::StatusOr<SourcePtr> NewRowsOf::Make(int64_t slice, int64_t first_row, int64_t count,
                                          EditResources& resources) const {
  if (rows_.kind == Resize::NEW_ROWS_ZEROS || row_elements_ == 0) {
    return RepeatSource(tensor_.dtype, 0, count * row_elements_);
  }
  if (rows_.kind == Resize::NEW_ROWS_MEAN) return Mean(slice, count, resources);
  // The rows at the same place of a new layer, which is drawn as float32.
  const int64_t bytes = row_elements_ * ElementSize(DType::kFloat32);
  const int64_t begin = (slice * rows_.size + first_row) * bytes;
  SourcePtr rows = RangeSource(drawn_, begin, begin + count * bytes);
  if (tensor_.dtype == DType::kFloat32) return rows;
  return CastSource(std::move(rows), DType::kFloat32, tensor_.dtype);
}

// Each old row is read once, in order, and counts as often as it is kept.
absl::StatusOr<SourcePtr> NewRowsOf::Mean(int64_t slice, int64_t count,
                                          EditResources& resources) const {
  // A sweep over the old rows: the change, at each row, of how often rows are kept.
  std::map<int64_t, int64_t> times;
  int64_t kept = 0;
  for (const RowRun& run : rows_.rows) {
    if (run.is_new()) continue;
    times[run.first] += 1;
    times[run.first + run.count] -= 1;
    kept += run.count;
  }
  const int64_t read = slices_ * std::min(kept, rows_.old_size) * row_bytes_;
  if (read > kMaxMeanBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the mean of ", tensor_.key, " is that of ", read, " bytes, of at most ",
        kMaxMeanBytes, ": use NEW_ROWS_ZEROS or NEW_ROWS_DEFAULT"));
  }
  // The sums, the row, and a block of what is read.
  auto s = resources.Reserve(row_elements_ * static_cast<int64_t>(sizeof(double)) +
                             2 * row_bytes_);
  if (!s.ok()) return s;
  std::vector<double> sums(row_elements_, 0.0);
  int64_t weight = 0, begin = 0;
  for (const auto& [row, change] : times) {
    if (weight > 0) {
      s = AddRows(slice * rows_.old_size + begin, slice * rows_.old_size + row,
                  static_cast<double>(weight), sums, resources);
      if (!s.ok()) return s;
    }
    weight += change;
    begin = row;
  }
  for (double& sum : sums) sum /= static_cast<double>(kept);
  std::string mean(row_bytes_, '\0');
  s = Cast(DType::kFloat64, reinterpret_cast<const char*>(sums.data()), tensor_.dtype,
           mean.data(), row_elements_);
  if (!s.ok()) return s;
  return RepeatBytesSource(std::move(mean), count);
}

absl::Status NewRowsOf::AddRows(int64_t begin, int64_t end, double weight,
                                std::vector<double>& sums,
                                const EditResources& resources) const {
  std::vector<double> block;
  int64_t at = 0;
  return tensor_.source->Visit(
      begin * row_bytes_, end * row_bytes_, [&](absl::string_view bytes) {
        if (auto s = resources.CheckCancelled(); !s.ok()) return s;
        block.resize(bytes.size() / ElementSize(tensor_.dtype));
        auto cast = Cast(tensor_.dtype, bytes.data(), DType::kFloat64,
                         reinterpret_cast<char*>(block.data()),
                         static_cast<int64_t>(block.size()));
        for (size_t i = 0; cast.ok() && i < block.size(); ++i) {
          sums[at] += weight * block[i];
          if (++at == row_elements_) at = 0;
        }
        return cast;
      });
}

}  // namespace modelstore::server::modify
