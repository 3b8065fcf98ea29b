#include "server/core/checkpoint_filter.h"

#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/contract/errors.h"

namespace modelstore::server {
namespace {

constexpr size_t kMaxFilterBytes = 4096;
constexpr absl::string_view kFigures = "version, epoch, step, loss, metrics.NAME";

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' ||
         c == '-' || c == '/';
}

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
  } else if (absl::ConsumePrefix(&name, "metrics.") && !name.empty()) {
    figure.kind_ = Kind::kMetric;
    figure.metric_ = std::string(name);
  } else {
    return std::nullopt;
  }
  return figure;
}

std::optional<double> CheckpointFigure::Of(
    const storage::records::CheckpointRecord& record) const {
  const auto& metadata = record.metadata();
  std::optional<double> value;
  switch (kind_) {
    case Kind::kVersion:
      value = static_cast<double>(record.version());
      break;
    case Kind::kEpoch:
      if (metadata.has_epoch()) value = static_cast<double>(metadata.epoch());
      break;
    case Kind::kStep:
      if (metadata.has_step()) value = static_cast<double>(metadata.step());
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

// Reads the text from front to back; each step leaves `rest_` behind what it took.
class CheckpointFilter::Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text), rest_(text) {}

  absl::StatusOr<std::vector<Condition>> Run() {
    std::vector<Condition> conditions;
    for (;;) {
      Condition condition;
      if (auto s = ReadCondition(&condition); !s.ok()) return s;
      conditions.push_back(std::move(condition));
      Skip();
      if (rest_.empty()) return conditions;
      const absl::string_view word = Word();
      if (!absl::EqualsIgnoreCase(word, "AND")) {
        return Bad(absl::StrCat("expected AND, found `", word, "`"));
      }
    }
  }

 private:
  absl::Status Bad(absl::string_view what) const {
    return InvalidField(
        "filter", absl::StrCat("at byte ", rest_.data() - text_.data(), ": ", what));
  }

  void Skip() { rest_ = absl::StripLeadingAsciiWhitespace(rest_); }

  absl::string_view Word() {
    Skip();
    size_t length = 0;
    while (length < rest_.size() && IsNameCharacter(rest_[length])) ++length;
    const absl::string_view word = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return word;
  }

  absl::Status ReadOperator(Operator* op) {
    static constexpr std::pair<absl::string_view, Operator> kOperators[] = {
        {"!=", Operator::kNotEqual}, {"<=", Operator::kAtMost},
        {">=", Operator::kAtLeast},  {"<", Operator::kLess},
        {">", Operator::kGreater},   {"=", Operator::kEqual}};
    Skip();
    for (const auto& [text, found] : kOperators) {
      if (!absl::ConsumePrefix(&rest_, text)) continue;
      *op = found;
      return absl::OkStatus();
    }
    return Bad("expected one of = != < <= > >=");
  }

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

  absl::Status ReadNumber(double* out) {
    Skip();
    size_t length = 0;
    while (length < rest_.size() &&
           (IsNameCharacter(rest_[length]) || rest_[length] == '+')) {
      ++length;
    }
    const absl::string_view word = rest_.substr(0, length);
    if (!absl::SimpleAtod(word, out) || std::isnan(*out)) {
      return Bad(absl::StrCat("`", word, "` is not a number"));
    }
    rest_.remove_prefix(length);
    return absl::OkStatus();
  }

  absl::Status ReadCondition(Condition* condition) {
    absl::string_view name = Word();
    const absl::string_view whole = name;
    if (absl::ConsumePrefix(&name, "labels.") && !name.empty()) {
      condition->label = std::string(name);
      if (auto s = ReadOperator(&condition->op); !s.ok()) return s;
      if (condition->op != Operator::kEqual && condition->op != Operator::kNotEqual) {
        return Bad("labels are compared by = and != alone");
      }
      return ReadString(&condition->text);
    }
    auto figure = CheckpointFigure::Parse(whole);
    if (!figure) {
      return Bad(absl::StrCat("`", whole, "` is none of ", kFigures, ", labels.NAME"));
    }
    condition->figure = *std::move(figure);
    if (auto s = ReadOperator(&condition->op); !s.ok()) return s;
    return ReadNumber(&condition->number);
  }

  const absl::string_view text_;
  absl::string_view rest_;
};

absl::StatusOr<CheckpointFilter> CheckpointFilter::Parse(absl::string_view text) {
  CheckpointFilter filter;
  if (absl::StripAsciiWhitespace(text).empty()) return filter;
  if (text.size() > kMaxFilterBytes) {
    return InvalidField("filter", absl::StrCat("has ", text.size(), " bytes, at most ",
                                               kMaxFilterBytes, " are allowed"));
  }
  auto conditions = Parser(text).Run();
  if (!conditions.ok()) return conditions.status();
  filter.conditions_ = *std::move(conditions);
  return filter;
}

bool CheckpointFilter::Fulfils(const Condition& condition,
                               const storage::records::CheckpointRecord& record) {
  if (!condition.label.empty()) {
    const auto& labels = record.metadata().labels();
    const auto found = labels.find(condition.label);
    if (found == labels.end()) return false;
    return (found->second == condition.text) == (condition.op == Operator::kEqual);
  }
  const std::optional<double> value = condition.figure.Of(record);
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
    if (!Fulfils(condition, record)) return false;
  }
  return true;
}

absl::StatusOr<CheckpointOrder> ParseOrder(absl::string_view text) {
  CheckpointOrder order;
  const std::vector<absl::string_view> words =
      absl::StrSplit(text, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (words.empty()) return order;
  order.figure = CheckpointFigure::Parse(words[0]);
  order.descending = words.size() > 1 && words[1] == "desc";
  const bool direction = words.size() == 1 || order.descending || words[1] == "asc";
  if (!order.figure || !direction || words.size() > 2) {
    return InvalidField(
        "order_by", absl::StrCat("one of ", kFigures, ", with `desc` behind it or not"));
  }
  if (words[0] == "version") order.figure.reset();
  return order;
}

}  // namespace modelstore::server
