// ListCheckpoints' filter and order_by, over stored records.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/api/types.h"

namespace modelstore::server {

// One of a checkpoint's figures: `version`, `epoch`, `step`, `loss` or
// `metrics.NAME`.
class CheckpointFigure {
 public:
  // Absent if `name` is none of them. NAME is taken as it is: quotes are part of it.
  static std::optional<CheckpointFigure> Parse(absl::string_view name);

  // Absent where the checkpoint lacks it, or it is NaN. A long double holds every
  // int64_t and every double exactly.
  std::optional<long double> Of(const storage::records::CheckpointRecord& record) const;
  // Its values are integers; else doubles.
  bool IsInteger() const { return kind_ < Kind::kLoss; }

 private:
  enum class Kind : uint8_t { kVersion, kEpoch, kStep, kLoss, kMetric };
  Kind kind_ = Kind::kVersion;
  std::string metric_;
};

// Conditions joined by AND, as ListCheckpointsRequest.filter describes them. An empty
// filter takes everything.
class CheckpointFilter {
 public:
  // INVALID_ARGUMENT naming `filter` and the place.
  static absl::StatusOr<CheckpointFilter> Parse(absl::string_view text);

  bool empty() const { return conditions_.empty(); }
  bool Takes(const storage::records::CheckpointRecord& record) const;

 private:
  enum class Operator : uint8_t { kEqual, kNotEqual, kLess, kAtMost, kGreater, kAtLeast };
  struct Condition {
    CheckpointFigure figure;
    std::string label;  // compared instead of the figure, unless empty
    Operator op = Operator::kEqual;
    long double number = 0;
    std::string text;
  };
  friend class ConditionParser;

  static bool Matches(const Condition& condition,
                      const storage::records::CheckpointRecord& record);

  std::vector<Condition> conditions_;
};

struct CheckpointOrder {
  // Absent: by version.
  std::optional<CheckpointFigure> figure;
  bool descending = false;
};
// INVALID_ARGUMENT naming `order_by`.
absl::StatusOr<CheckpointOrder> ParseOrder(absl::string_view text);

}  // namespace modelstore::server
