// The settings of the server. Precedence: command line, environment (MODELSTORE_*),
// configuration file, default. --help is the reference.
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

// Each field is set by a flag, which --help describes. Comments here add what it does not
// say.
struct ServerConfig {
  std::string address = "127.0.0.1";
  // 0: any free port.
  int port = 7070;
  // File to which the bound port is written once connections are accepted.
  std::string port_file;
  // Allows non-local addresses without encryption and authentication.
  bool insecure = false;

  // Storage and background work.
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
  absl::Duration reopen_interval = absl::Seconds(1);
  // 0: no scrub.
  int64_t scrub_bytes_per_second = int64_t{8} << 20;
  absl::Duration scrub_period = absl::Hours(168);

  // Memory of messages in transit: half for gRPC's receive buffers, a quarter for
  // messages that wait to be stored, a quarter for messages being sent. The same amount
  // again bounds what running calls hold besides messages (SessionMemory).
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

// The parsed command line.
struct Command {
  enum class Kind : uint8_t { kServe, kHealth };
  Kind kind = Kind::kServe;
  ServerConfig config;
  // For kHealth: the server to check, and the timeout.
  std::string health_target;
  absl::Duration health_timeout = absl::Seconds(3);
};

struct ParsedCommand {
  // Absent: print `text` (help, version or an error) and exit with `exit_code`.
  std::optional<Command> command;
  std::string text;
  int exit_code = 0;
};

// Parses `arguments`, without the program's name. Also reads the environment and the
// configuration file.
ParsedCommand ParseCommandLine(const std::vector<std::string>& arguments);

// Checks what the flags cannot check alone. INVALID_ARGUMENT naming the invalid setting,
// such as a non-local address without --insecure or a budget that is too small.
absl::Status ValidateConfig(const ServerConfig& config);

}  // namespace modelstore::server
