// What list and selection requests carry as text: filters, orders, page tokens and
// patterns.
#include "absl/strings/str_cat.h"
#include "server/core/checkpoint_filter.h"
#include "server/core/page_token.h"
#include "server/core/pattern.h"
#include "tests/fuzz/targets.h"

namespace modelstore::fuzz {
namespace {

using server::CheckpointFilter;
using server::KeyPattern;

std::vector<std::string> Filters() {
  return {"loss < 0.5 AND epoch >= 10",
          "labels.stage = \"production\" AND metrics.top-1 > 7.5e1",
          "labels.note != \"a \\\"quoted\\\" word\"",
          "version = 3",
          "step <= 9223372036854775807 and metrics.a/b != -inf",
          "   ",
          "loss < nan"};
}

bool RunFilter(absl::string_view input) {
  const auto filter = CheckpointFilter::Parse(input);
  if (!filter.ok()) {
    RequireRefusal(filter.status(), "filter: ");
    return false;
  }
  if (filter->empty()) return true;
  storage::records::CheckpointRecord record;
  record.set_version(3);
  record.mutable_metadata()->set_epoch(10);
  record.mutable_metadata()->set_loss(0.25);
  (*record.mutable_metadata()->mutable_metrics())["top-1"] = 76;
  (*record.mutable_metadata()->mutable_labels())["stage"] = "production";
  const bool takes = filter->Takes(record);
  // A filter can be extended by AND, up to its longest.
  for (const bool holds : {true, false}) {
    const std::string longer =
        absl::StrCat(input, holds ? " AND version = 3" : " AND version = 4");
    if (longer.size() > 4096) break;
    const auto both = CheckpointFilter::Parse(longer);
    FUZZ_REQUIRE(both.ok());
    FUZZ_REQUIRE(both->Takes(record) == (takes && holds));
  }
  return true;
}

std::vector<std::string> Orders() {
  return {"loss", "version desc", "metrics.top-1 asc", "epoch\tdesc", "", "loss up"};
}

bool RunOrder(absl::string_view input) {
  const auto order = server::ParseOrder(input);
  if (!order.ok()) RequireRefusal(order.status(), "order_by: ");
  return order.ok();
}

// The first byte is the length of the scope; the scope and the token follow it.
std::vector<std::string> Tokens() {
  std::vector<std::string> seeds;
  for (const char* position : {"1", "models/iris", "\xff\0x"}) {
    seeds.push_back(absl::StrCat("\4list", server::MakePageToken("list", position)));
  }
  seeds.push_back("\4listAAAA");
  seeds.emplace_back("\0", 1);
  return seeds;
}

bool RunToken(absl::string_view input) {
  if (input.empty()) return false;
  const auto scope_bytes = static_cast<uint8_t>(input[0]);
  const absl::string_view scope = input.substr(1, scope_bytes);
  const absl::string_view rest = input.substr(1 + scope.size());
  // Any bytes are a position, and its token means that position and this scope alone.
  if (!rest.empty() && rest.size() <= 1024) {
    const std::string made = server::MakePageToken(scope, rest);
    FUZZ_REQUIRE(server::ReadPageToken(scope, made).value_or("refused") == rest);
    FUZZ_REQUIRE(!server::ReadPageToken(absl::StrCat(scope, "x"), made).ok());
  }
  const auto position = server::ReadPageToken(scope, rest);
  if (!position.ok()) {
    RequireRefusal(position.status(), "page_token: ");
    return false;
  }
  FUZZ_REQUIRE(position->empty() == rest.empty());
  return true;
}

// A pattern, a line feed, and the name that it is matched with.
std::vector<std::string> Patterns() {
  return {"model:layer\\..*\nmodel:layer.0.weight",
          ".*weight\nmodel:layer.0.weight",
          "optimizer:(state|param_groups)/[[:digit:]]+/.*\noptimizer:state/0/exp_avg",
          "(?i:LAYER).*\nmodel:layer",
          "layer.0.weight\nmodel:layer.0.weight",
          "(?P<a>x{1,9}){1,9}\nmodel:x",
          "\\pL+\nmodel:权",
          "(\nmodel:x"};
}

bool RunPattern(absl::string_view input) {
  const size_t end = input.find('\n');
  const absl::string_view text = input.substr(0, end);
  const std::string name(end == absl::string_view::npos ? "" : input.substr(end + 1));
  const auto pattern = KeyPattern::Compile("field", text);
  if (!pattern.ok()) {
    FUZZ_REQUIRE(pattern.status().code() == absl::StatusCode::kInvalidArgument);
    return false;
  }
  FUZZ_REQUIRE(pattern->text() == text);
  const size_t colon = name.find(':');
  const std::string section =
      colon == std::string::npos ? "model" : name.substr(0, colon);
  const std::string key = colon == std::string::npos ? name : name.substr(colon + 1);
  // A literal key matches itself.
  if (pattern->IsLiteral() && text == key && text.find(':') == absl::string_view::npos &&
      text.find('\n') == absl::string_view::npos && section == "model") {
    FUZZ_REQUIRE(pattern->Matches(section, key, name));
  } else {
    pattern->Matches(section, key, name);
  }
  return true;
}

}  // namespace

std::vector<Target> QueryTargets() {
  return {{"filter", Filters, RunFilter},
          {"order", Orders, RunOrder},
          {"page_token", Tokens, RunToken},
          {"pattern", Patterns, RunPattern}};
}

}  // namespace modelstore::fuzz
