// Rows of a tensor: which old ones are kept, and what new ones begin with.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/v1/edits.pb.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

// Adds an old row behind others; it joins the run that it follows.
void AddRow(int64_t row, std::vector<RowRun>& rows);

// Rows of a tensor whose own rows are `of`: where each of `rows` was before both.
// Nothing if that is more runs than are worth following.
std::optional<std::vector<RowRun>> ComposeRows(const std::vector<RowRun>& of,
                                               const std::vector<RowRun>& rows);

int64_t Product(const std::vector<int64_t>& shape, size_t begin, size_t end);

// The new rows of one tensor, as one source per slice of the dimensions before the one
// that is resized.
class NewRowsOf {
 public:
  struct Rows {
    int64_t old_size = 0;
    int64_t size = 0;
    std::vector<RowRun> rows;
    v1::Edit::ResizeOutput::NewRows kind = v1::Edit::ResizeOutput::NEW_ROWS_DEFAULT;
  };
  // `drawn` has the new shape and float32; null unless rows are made by default.
  NewRowsOf(const WorkingTensor& tensor, Rows rows, int dimension, SourcePtr drawn);

  int64_t row_bytes() const { return row_bytes_; }

  // `count` rows from `first_row` of the new ones on. NEW_ROWS_MEAN reads the kept rows,
  // once for each slice, until the call is cancelled.
  absl::StatusOr<SourcePtr> Make(int64_t slice, int64_t first_row, int64_t count,
                                 EditResources& resources) const;

 private:
  absl::StatusOr<SourcePtr> Mean(int64_t slice, int64_t count,
                                 EditResources& resources) const;
  absl::Status AddRows(int64_t begin, int64_t end, double weight,
                       std::vector<double>& sums, const EditResources& resources) const;

  const WorkingTensor& tensor_;
  const Rows rows_;
  const SourcePtr drawn_;
  // Blocks before the resized dimension. Each gets the same rows.
  int64_t slices_ = 1;
  int64_t row_elements_ = 1;
  int64_t row_bytes_ = 0;
};

}  // namespace modelstore::server::modify
