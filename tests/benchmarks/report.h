// Figures of a benchmark run: one JSON object per line as they come, and a table
// at the end.
#pragma once

#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace modelstore::bench {

struct Figure {
  std::string name;
  double value = 0;
  std::string unit;
  // Further numbers behind `value`, printed beside it.
  std::map<std::string, double> details = {};
};

// A line that Report::Add() printed; absent if `line` is none.
std::optional<Figure> ParseFigure(const std::string& line);

double Median(std::vector<double> values);
// `q` in [0, 1], nearest rank.
double Quantile(std::vector<double> values, double q);

// Not thread-safe.
class Report {
 public:
  // `json` gets the lines too, if it is not null.
  explicit Report(std::FILE* json) : json_(json) {}
  void Add(Figure figure);
  // A fact about the run that is not a figure: machine, versions.
  void Note(std::string_view name, std::string_view value);
  // Every figure in order, with its target and whether it is met.
  void PrintTable() const;

 private:
  void PrintLine(const std::string& line) const;

  std::FILE* json_;
  std::vector<Figure> figures_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

}  // namespace modelstore::bench
