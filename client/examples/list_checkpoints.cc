// Prints a table of the versions of a model. Uses the client library without torch.
//
//   list_checkpoints models/iris
//   list_checkpoints --lowest-loss models/iris      prints one name
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <string>
#include <vector>

#include "modelstore/client.h"
#include "modelstore/errors.h"

namespace {

using modelstore::CheckpointInfo;

std::string Number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string Bytes(int64_t bytes) {
  if (bytes < 10'000) return std::to_string(bytes) + " B";
  if (bytes < 10'000'000) return Number("%.1f kB", bytes / 1e3);
  return Number("%.1f MB", bytes / 1e6);
}

std::string Time(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &utc);
  return text;
}

void PrintTable(const std::vector<CheckpointInfo>& checkpoints) {
  std::vector<std::vector<std::string>> rows = {
      {"version", "epoch", "loss", "accuracy", "logical", "stored", "time (UTC)"}};
  for (const CheckpointInfo& c : checkpoints) {
    const auto accuracy = c.metrics.find("accuracy");
    rows.push_back({std::to_string(c.version), c.epoch ? std::to_string(*c.epoch) : "-",
                    c.loss ? Number("%.6f", *c.loss) : "-",
                    accuracy != c.metrics.end() ? Number("%.3f", accuracy->second) : "-",
                    Bytes(c.logical_bytes), Bytes(c.stored_bytes), Time(c.create_time)});
  }
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      std::printf("%s%*s", i == 0 ? "" : "  ", static_cast<int>(widths[i]),
                  row[i].c_str());
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string server = "127.0.0.1:7070", model = "models/iris";
  bool lowest_loss = false;
  CLI::App app("Lists the versions of a model with epoch, loss and sizes");
  app.option_defaults()->always_capture_default();
  app.add_option("--server", server, "Address of modelstored");
  app.add_option("model", model, "models/{id}");
  app.add_flag("--lowest-loss", lowest_loss,
               "Print the name of the version of lowest loss, nothing else");
  CLI11_PARSE(app, argc, argv);

  auto client = modelstore::Client::Connect(server);
  if (!client.ok()) {
    std::cerr << "list_checkpoints: " << modelstore::StatusLine(client.status()) << "\n";
    return 1;
  }
  auto checkpoints = client->ListCheckpoints(model);
  if (!checkpoints.ok()) {
    std::cerr << "list_checkpoints: " << modelstore::StatusLine(checkpoints.status())
              << "\n";
    return 1;
  }
  if (!lowest_loss) {
    PrintTable(*checkpoints);
    return 0;
  }
  // A version saved without a loss has no rank.
  const CheckpointInfo* best = nullptr;
  for (const CheckpointInfo& c : *checkpoints) {
    if (c.loss && (best == nullptr || *c.loss < *best->loss)) best = &c;
  }
  if (best == nullptr) {
    std::cerr << "list_checkpoints: no version of " << model << " has a loss\n";
    return 1;
  }
  std::cout << best->name << "\n";
  return 0;
}
