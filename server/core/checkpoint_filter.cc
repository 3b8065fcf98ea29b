#include "server/core/checkpoint_filter.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/contract/errors.h"

namespace modelstore::server {
namespace {

constexpr size_t kMaxFilterBytes = 4096;
constexpr absl::string_view kMetrics = "metrics.";
constexpr absl::string_view kLabels = "labels.";
constexpr absl::string_view kFigures = "version, epoch, step, loss, metrics.NAME";

// Characters of a name or number without quotes.
bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' ||
         c == '-' || c == '/';
}

// A lexer over the text of a request field. Each Read or Consume skips leading white
// space and removes the token that it returns from the front of rest_.
class TextReader {
 public:
  TextReader(absl::string_view field, absl::string_view text)
      : field_(field), text_(text), rest_(text) {}

  // Returns an INVALID_ARGUMENT with the byte offset of rest_.
  absl::Status Bad(absl::string_view what) const {
    return InvalidField(
        field_, absl::StrCat("at byte ", rest_.data() - text_.data(), ": ", what));
  }

  bool AtEnd() {
    Skip();
    return rest_.empty();
  }

  // Returns the longest run of name characters; may be empty.
  absl::string_view ReadWord() {
    Skip();
    size_t length = 0;
    while (length < rest_.size() && IsNameCharacter(rest_[length])) ++length;
    const absl::string_view word = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return word;
  }

  // Reads a field name, and unquotes NAME of `metrics."NAME"` and `labels."NAME"`.
  absl::Status ReadFieldName(std::string* out) {
    *out = std::string(ReadWord());
    const bool named = *out == kMetrics || *out == kLabels;
    return named && absl::StartsWith(rest_, "\"") ? ReadString(out) : absl::OkStatus();
  }

  // Reads a quoted string and appends its content to `out`. A backslash escapes the next
  // character.
  absl::Status ReadString(std::string* out) {
    Skip();
    if (!absl::ConsumePrefix(&rest_, "\""))
      return Bad("expected a string in double quotes");
    while (!rest_.empty()) {
      char c = rest_[0];
      rest_.remove_prefix(1);
      if (c == '"') return absl::OkStatus();
      if (c == '\\' && !rest_.empty()) {
        c = rest_[0];
        rest_.remove_prefix(1);
      }
      out->push_back(c);
    }
    return Bad("the string has no end");
  }

  absl::Status ReadNumber(long double* out) {
    Skip();
    // Integers are tried first, because a double cannot represent all int64_t.
    size_t length = 0;
    while (length < rest_.size() &&
           (IsNameCharacter(rest_[length]) || rest_[length] == '+')) {
      ++length;
    }
    const absl::string_view word = rest_.substr(0, length);
    int64_t integer = 0;
    double number = 0;
    if (absl::SimpleAtoi(word, &integer)) {
      *out = static_cast<long double>(integer);
    } else if (absl::SimpleAtod(word, &number) && !std::isnan(number)) {
      *out = number;
    } else {
      return Bad(absl::StrCat("`", word, "` is not a number"));
    }
    rest_.remove_prefix(length);
    return absl::OkStatus();
  }

  bool Consume(absl::string_view text) {
    Skip();
    return absl::ConsumePrefix(&rest_, text);
  }

 private:
  void Skip() { rest_ = absl::StripLeadingAsciiWhitespace(rest_); }

  const absl::string_view field_;
  const absl::string_view text_;
  absl::string_view rest_;
};

}  // namespace

std::optional<CheckpointFigure> CheckpointFigure::Parse(absl::string_view name) {
  CheckpointFigure figure;
  if (name == "version") {
    figure.kind_ = Kind::kVersion;
  } else if (name == "epoch") {
    figure.kind_ = Kind::kEpoch;
  } else if (name == "step") {
    figure.kind_ = Kind::kStep;
  } else if (name == "loss") {
    figure.kind_ = Kind::kLoss;
  } else if (absl::ConsumePrefix(&name, kMetrics) && !name.empty()) {
    figure.kind_ = Kind::kMetric;
    figure.metric_ = std::string(name);
  } else {
    return std::nullopt;
  }
  return figure;
}

std::optional<long double> CheckpointFigure::Of(
    const storage::records::CheckpointRecord& record) const {
  const auto& metadata = record.metadata();
  // The guarantee of the header: every int64_t is represented exactly.
  static_assert(std::numeric_limits<long double>::digits >=
                std::numeric_limits<int64_t>::digits);
  std::optional<long double> value;
  switch (kind_) {
    case Kind::kVersion:
      value = static_cast<long double>(record.version());
      break;
    case Kind::kEpoch:
      if (metadata.has_epoch()) value = static_cast<long double>(metadata.epoch());
      break;
    case Kind::kStep:
      if (metadata.has_step()) value = static_cast<long double>(metadata.step());
      break;
    case Kind::kLoss:
      if (metadata.has_loss()) value = metadata.loss();
      break;
    case Kind::kMetric: {
      const auto found = metadata.metrics().find(metric_);
      if (found != metadata.metrics().end()) value = found->second;
      break;
    }
  }
  if (value.has_value() && std::isnan(*value)) return std::nullopt;
  return value;
}

// Parses `filter`: condition ("AND" condition)*.
class ConditionParser {
 public:
  using Operator = CheckpointFilter::Operator;
  using Condition = CheckpointFilter::Condition;

  explicit ConditionParser(absl::string_view text) : reader_("filter", text) {}

  absl::StatusOr<std::vector<Condition>> Run() {
    std::vector<Condition> conditions;
    for (;;) {
      if (auto s = ReadCondition(&conditions.emplace_back()); !s.ok()) return s;
      if (reader_.AtEnd()) return conditions;
      const absl::string_view word = reader_.ReadWord();
      if (!absl::EqualsIgnoreCase(word, "AND")) {
        return reader_.Bad(absl::StrCat("expected AND, found `", word, "`"));
      }
    }
  }

 private:
  absl::Status ReadOperator(Operator* op) {
    // Two characters before one: `<` is a prefix of `<=`.
    static constexpr std::pair<absl::string_view, Operator> kOperators[] = {
        {"!=", Operator::kNotEqual}, {"<=", Operator::kAtMost},
        {">=", Operator::kAtLeast},  {"<", Operator::kLess},
        {">", Operator::kGreater},   {"=", Operator::kEqual}};
    for (const auto& [text, found] : kOperators) {
      if (!reader_.Consume(text)) continue;
      *op = found;
      return absl::OkStatus();
    }
    return reader_.Bad(
        "expected one of = != < <= > >=; a name with characters other than letters, "
        "digits and _ . - / goes in double quotes: metrics.\"mAP@0.5\"");
  }

  absl::Status ReadCondition(Condition* condition) {
    std::string name;
    if (auto s = reader_.ReadFieldName(&name); !s.ok()) return s;
    absl::string_view label = name;
    if (absl::ConsumePrefix(&label, kLabels) && !label.empty()) {
      condition->label = std::string(label);
      if (auto s = ReadOperator(&condition->op); !s.ok()) return s;
      if (condition->op != Operator::kEqual && condition->op != Operator::kNotEqual) {
        return reader_.Bad("labels are compared by = and != alone");
      }
      return reader_.ReadString(&condition->text);
    }
    auto figure = CheckpointFigure::Parse(name);
    if (!figure) {
      return reader_.Bad(
          absl::StrCat("`", name, "` is none of ", kFigures, ", labels.NAME"));
    }
    condition->figure = *std::move(figure);
    if (auto s = ReadOperator(&condition->op); !s.ok()) return s;
    if (auto s = reader_.ReadNumber(&condition->number); !s.ok()) return s;
    // An integer literal is rounded to a double, as the stored value was when it was
    // saved, so that equal numbers compare equal.
    if (!condition->figure.IsInteger()) {
      condition->number = static_cast<double>(condition->number);
    }
    return absl::OkStatus();
  }

  TextReader reader_;
};

absl::StatusOr<CheckpointFilter> CheckpointFilter::Parse(absl::string_view text) {
  CheckpointFilter filter;
  if (absl::StripAsciiWhitespace(text).empty()) return filter;
  if (text.size() > kMaxFilterBytes) {
    return InvalidField("filter", absl::StrCat("has ", text.size(), " bytes, at most ",
                                               kMaxFilterBytes, " are allowed"));
  }
  auto conditions = ConditionParser(text).Run();
  if (!conditions.ok()) return conditions.status();
  filter.conditions_ = *std::move(conditions);
  return filter;
}

bool CheckpointFilter::Matches(const Condition& condition,
                               const storage::records::CheckpointRecord& record) {
  if (!condition.label.empty()) {
    const auto& labels = record.metadata().labels();
    const auto found = labels.find(condition.label);
    if (found == labels.end()) return condition.op == Operator::kNotEqual;
    return (found->second == condition.text) == (condition.op == Operator::kEqual);
  }
  const std::optional<long double> value = condition.figure.Of(record);
  if (!value.has_value()) return false;
  switch (condition.op) {
    case Operator::kEqual:
      return *value == condition.number;
    case Operator::kNotEqual:
      return *value != condition.number;
    case Operator::kLess:
      return *value < condition.number;
    case Operator::kAtMost:
      return *value <= condition.number;
    case Operator::kGreater:
      return *value > condition.number;
    case Operator::kAtLeast:
      return *value >= condition.number;
  }
  return false;
}

bool CheckpointFilter::Takes(const storage::records::CheckpointRecord& record) const {
  for (const Condition& condition : conditions_) {
    if (!Matches(condition, record)) return false;
  }
  return true;
}

absl::StatusOr<CheckpointOrder> ParseOrder(absl::string_view text) {
  CheckpointOrder order;
  TextReader reader("order_by", text);
  if (reader.AtEnd()) return order;
  std::string name;
  if (auto s = reader.ReadFieldName(&name); !s.ok()) return s;
  order.figure = CheckpointFigure::Parse(name);
  const absl::string_view direction = reader.ReadWord();
  order.descending = direction == "desc";
  const bool known = direction.empty() || direction == "asc" || order.descending;
  if (!order.figure || !known || !reader.AtEnd()) {
    return InvalidField("order_by",
                        absl::StrCat("one of ", kFigures,
                                     ", alone or before `asc` or `desc`; other names "
                                     "than letters, digits and _.-/ in double quotes"));
  }
  // Ordering by version is the store's own order, which needs no sorting.
  if (name == "version") order.figure.reset();
  return order;
}

}  // namespace modelstore::server
