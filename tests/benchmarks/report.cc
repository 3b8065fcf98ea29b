#include "tests/benchmarks/report.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace modelstore::bench {
namespace {

// What a figure is meant to reach. Figures without a row are reported only.
struct Target {
  const char* name;
  bool at_least;
  double bound;
};
constexpr Target kTargets[] = {
    {"save_vs_torch_save_fsync", true, 1.5},
    {"load_vs_torch_load", true, 1.2},
    {"async_stall_vs_torch_save", false, 0.2},
    {"resave_speedup", true, 5},
    {"resave_bytes_ratio", false, 1.1},
    {"write_amplification", false, 1.02},
    {"server_rss_mib", false, 256},
    {"small_save_fsyncs", false, 1},
    {"partial_load_bytes_ratio", false, 1.05},
    {"policy_overhead", false, 1.1},
    {"modify_cast_vs_torch", true, 1.5},
    {"modify_average_vs_torch", true, 1.5},
    {"modify_rss_mib", false, 256},
    {"modify_head_ms", false, 100},
    {"modify_head_stored_bytes", false, 163880},
    {"reclaim_ratio", true, 0.95},
    {"watch_latency_ms", false, 100},
};

const Target* FindTarget(const std::string& name) {
  for (const Target& t : kTargets) {
    if (name == t.name) return &t;
  }
  return nullptr;
}

std::string JsonText(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + "\"";
}

// Four significant digits are more than the machine repeats.
std::string Number(double v) {
  if (v == std::floor(v) && std::fabs(v) < 1e15) return absl::StrFormat("%.0f", v);
  return absl::StrFormat(std::fabs(v) >= 1000 ? "%.1f" : "%.4g", v);
}

}  // namespace

std::optional<Figure> ParseFigure(const std::string& line) {
  // "key": value, ...; texts hold neither quotes nor backslashes.
  std::map<std::string, std::string> texts;
  Figure figure;
  bool has_value = false;
  for (size_t at = line.find('"'); at != std::string::npos; at = line.find('"', at)) {
    const size_t end = line.find('"', at + 1);
    const size_t colon = line.find(':', end);
    if (end == std::string::npos || colon == std::string::npos) return std::nullopt;
    const std::string key = line.substr(at + 1, end - at - 1);
    const size_t value = line.find_first_not_of(' ', colon + 1);
    if (value == std::string::npos) return std::nullopt;
    if (line[value] == '"') {
      const size_t close = line.find('"', value + 1);
      if (close == std::string::npos) return std::nullopt;
      texts[key] = line.substr(value + 1, close - value - 1);
      at = close + 1;
      continue;
    }
    const double number = std::atof(line.c_str() + value);
    if (key == "value") {
      figure.value = number;
      has_value = true;
    } else {
      figure.details[key] = number;
    }
    at = value;
  }
  if (!has_value || texts["name"].empty()) return std::nullopt;
  figure.name = texts["name"];
  figure.unit = texts["unit"];
  return figure;
}

double Median(std::vector<double> values) { return Quantile(std::move(values), 0.5); }

double Quantile(std::vector<double> values, double q) {
  if (values.empty()) return std::nan("");
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(q * static_cast<double>(values.size()));
  return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

void Report::PrintLine(const std::string& line) const {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  if (json_ != nullptr) {
    std::fprintf(json_, "%s\n", line.c_str());
    std::fflush(json_);
  }
}

void Report::Add(Figure figure) {
  std::string line = absl::StrCat("{\"name\": ", JsonText(figure.name),
                                  ", \"value\": ", Number(figure.value),
                                  ", \"unit\": ", JsonText(figure.unit));
  for (const auto& [key, value] : figure.details) {
    absl::StrAppend(&line, ", ", JsonText(key), ": ", Number(value));
  }
  PrintLine(line + "}");
  figures_.push_back(std::move(figure));
}

void Report::Note(std::string_view name, std::string_view value) {
  PrintLine(absl::StrCat("{\"name\": ", JsonText(name), ", \"value\": ", JsonText(value),
                         ", \"unit\": \"text\"}"));
  notes_.emplace_back(name, value);
}

void Report::PrintTable() const {
  std::printf("\n");
  for (const auto& [name, value] : notes_) {
    std::printf("%-10s %s\n", name.c_str(), value.c_str());
  }
  std::printf("\n%-28s %12s %-9s %-18s %s\n", "figure", "value", "unit", "target",
              "details");
  for (const Figure& f : figures_) {
    std::string target = "report";
    if (const Target* t = FindTarget(f.name)) {
      const bool met = t->at_least ? f.value >= t->bound : f.value <= t->bound;
      target = absl::StrCat(t->at_least ? ">= " : "<= ", Number(t->bound),
                            met ? " met" : " MISSED");
    }
    std::string details;
    for (const auto& [key, value] : f.details) {
      absl::StrAppend(&details, details.empty() ? "" : ", ", key, " ", Number(value));
    }
    std::printf("%-28s %12s %-9s %-18s %s\n", f.name.c_str(), Number(f.value).c_str(),
                f.unit.c_str(), target.c_str(), details.c_str());
  }
  std::fflush(stdout);
}

}  // namespace modelstore::bench
