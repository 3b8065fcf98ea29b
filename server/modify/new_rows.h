// Rows of a resized tensor: which old rows are kept, and the initial values of new ones.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/v1/edits.pb.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

// Appends an old row. Extends the last run if the row follows it.
void AddRow(int64_t row, std::vector<RowRun>& rows);

// Composes two selections of rows: `rows` selects from a tensor that `of` has selected
// from an original. Returns `rows` in terms of the original, or nothing if that takes too
// many runs.
std::optional<std::vector<RowRun>> ComposeRows(const std::vector<RowRun>& of,
                                               const std::vector<RowRun>& rows);

// The product of the sizes of dimensions [begin, end).
int64_t Product(const std::vector<int64_t>& shape, size_t begin, size_t end);

// Makes the new rows of one tensor. A slice is the part of the tensor at one index of the
// dimensions before the resized one, so a tensor resized in its first dimension has one
// slice. Each slice gets its own source.
class NewRowsOf {
 public:
  struct Rows {
    // Size of the resized dimension before and after.
    int64_t old_size = 0;
    int64_t size = 0;
    std::vector<RowRun> rows;
    v1::Edit::ResizeOutput::NewRows kind = v1::Edit::ResizeOutput::NEW_ROWS_DEFAULT;
  };
  // `tensor` must outlive this. `drawn` is a float32 tensor of the new shape from which
  // new rows are taken; null unless `rows.kind` is NEW_ROWS_DEFAULT.
  NewRowsOf(const WorkingTensor& tensor, Rows rows, int dimension, SourcePtr drawn);

  int64_t row_bytes() const { return row_bytes_; }

  // Makes rows [first_row, first_row + count) of a slice, which are all new.
  // NEW_ROWS_MEAN reads the kept rows of the slice, and stops if the call is cancelled.
  absl::StatusOr<SourcePtr> Make(int64_t slice, int64_t first_row, int64_t count,
                                 EditResources& resources) const;

 private:
  // The mean of the kept rows of a slice, `count` times.
  absl::StatusOr<SourcePtr> Mean(int64_t slice, int64_t count,
                                 EditResources& resources) const;
  // Adds rows [begin, end), counted over all slices, to `sums`, each times `weight`.
  absl::Status AddRows(int64_t begin, int64_t end, double weight,
                       std::vector<double>& sums, const EditResources& resources) const;

  const WorkingTensor& tensor_;
  const Rows rows_;
  const SourcePtr drawn_;
  // Number of slices. In each the same rows are kept.
  int64_t slices_ = 1;
  int64_t row_elements_ = 1;
  int64_t row_bytes_ = 0;
};

}  // namespace modelstore::server::modify
