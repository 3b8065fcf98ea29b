// The fields filter and order_by of ListCheckpoints, evaluated on stored records.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/api/types.h"

namespace modelstore::server {

// A numeric field of a checkpoint: `version`, `epoch`, `step`, `loss` or `metrics.NAME`.
class CheckpointFigure {
 public:
  // Absent if `name` is none of them. NAME is not unquoted: quotes are part of it.
  static std::optional<CheckpointFigure> Parse(absl::string_view name);

  // Returns the value of the field; absent if the checkpoint does not have it, or it is
  // NaN. A long double represents every int64_t and every double exactly.
  std::optional<long double> Of(const storage::records::CheckpointRecord& record) const;
  // True if the values are integers, false if they are doubles.
  bool IsInteger() const { return kind_ < Kind::kLoss; }

 private:
  // Integers precede doubles: see IsInteger().
  enum class Kind : uint8_t { kVersion, kEpoch, kStep, kLoss, kMetric };
  Kind kind_ = Kind::kVersion;
  std::string metric_;  // NAME of kMetric
};

// Conditions joined by AND; ListCheckpointsRequest.filter documents the syntax. An empty
// filter accepts every checkpoint. Thread-safe once parsed.
class CheckpointFilter {
 public:
  // INVALID_ARGUMENT naming `filter` and the byte offset of the error.
  static absl::StatusOr<CheckpointFilter> Parse(absl::string_view text);

  bool empty() const { return conditions_.empty(); }
  // A condition on a figure that the checkpoint does not have is false, whatever its
  // operator. A label that it does not have differs from every text.
  bool Takes(const storage::records::CheckpointRecord& record) const;

 private:
  enum class Operator : uint8_t { kEqual, kNotEqual, kLess, kAtMost, kGreater, kAtLeast };
  // Compares a label with `text` if `label` is not empty, else the figure with `number`.
  struct Condition {
    CheckpointFigure figure;
    std::string label;
    Operator op = Operator::kEqual;
    long double number = 0;
    std::string text;
  };
  friend class ConditionParser;

  static bool Matches(const Condition& condition,
                      const storage::records::CheckpointRecord& record);

  std::vector<Condition> conditions_;
};

// The order of a list of checkpoints.
struct CheckpointOrder {
  // Absent: order by version.
  std::optional<CheckpointFigure> figure;
  bool descending = false;
};
// Parses order_by, such as `loss desc`. INVALID_ARGUMENT naming `order_by`.
absl::StatusOr<CheckpointOrder> ParseOrder(absl::string_view text);

}  // namespace modelstore::server
