// Every setting of the server, and where settings come from: command line before
// environment (MODELSTORE_*) before configuration file before default. The
// command's --help is the reference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/log.h"

namespace modelstore::server {

struct ServerConfig {
  std::string address = "127.0.0.1";
  // 0: any free one.
  int port = 7070;
  // The bound port is written here, once it accepts connections.
  std::string port_file;
  // Serves others than this machine without encryption and authentication.
  bool insecure = false;

  std::string data_dir = "modelstore-data";
  bool accept_data_loss = false;
  int64_t reserve_bytes = int64_t{256} << 20;
  int64_t ballast_bytes = int64_t{64} << 20;
  int64_t pack_bytes = int64_t{256} << 20;
  absl::Duration grace = absl::Seconds(60);
  absl::Duration upload_ttl = absl::Hours(24);
  absl::Duration start_grace = absl::Minutes(10);
  int max_uploads = 1024;
  int max_uploads_per_model = 64;
  absl::Duration upload_min_idle = absl::Minutes(10);
  absl::Duration collect_interval = absl::Minutes(5);
  absl::Duration heal_interval = absl::Seconds(1);
  // 0: no scrub.
  int64_t scrub_bytes_per_second = int64_t{8} << 20;
  absl::Duration scrub_period = absl::Hours(168);

  // What messages in transit may hold: half for what gRPC receives, a quarter
  // for what waits to be stored, a quarter for what is being sent.
  int64_t memory_budget_bytes = int64_t{160} << 20;
  // 0: twice the cores, at least 4.
  int storage_threads = 0;
  int max_queue = 1024;
  int max_streams = 1024;
  int max_watchers = 4096;
  int max_streams_per_connection = 128;
  absl::Duration idle_timeout = absl::Minutes(2);
  absl::Duration stall_timeout = absl::Seconds(5);
  absl::Duration keepalive_time = absl::Seconds(10);
  absl::Duration shutdown_deadline = absl::Seconds(30);

  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
};

// What the command line asks for.
struct Command {
  enum class Kind : uint8_t { kServe, kHealth };
  Kind kind = Kind::kServe;
  ServerConfig config;
  // Of kHealth: who is asked, and how long it may take to answer.
  std::string health_target;
  absl::Duration health_timeout = absl::Seconds(3);
};

struct ParsedCommand {
  // Absent: `text` answers the command line (help, version, an error), and the
  // process ends with `exit_code`.
  std::optional<Command> command;
  std::string text;
  int exit_code = 0;
};

// `arguments` without the program's name. Reads the environment and the
// configuration file.
ParsedCommand ParseCommandLine(const std::vector<std::string>& arguments);

// INVALID_ARGUMENT naming the setting: an address that others can reach without
// --insecure, a budget too small to work with.
absl::Status ValidateConfig(const ServerConfig& config);

}  // namespace modelstore::server
