#include "server/config.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/contract/limits.h"
#include "server/listen_address.h"

namespace modelstore::server {
namespace {

constexpr char kDescription[] =
    "modelstored stores versioned training checkpoints and serves them over gRPC.";
constexpr char kFooter[] =
    "Precedence: command line, environment variable, configuration file (TOML:\n"
    "`port = 7070`), default. Units of sizes: B, KiB, MiB, GiB. Units of durations:\n"
    "ms, s, m, h, such as `1h30m`.";

// `data-dir` becomes MODELSTORE_DATA_DIR.
std::string EnvironmentName(const std::string& setting) {
  return absl::StrCat("MODELSTORE_",
                      absl::AsciiStrToUpper(absl::StrReplaceAll(setting, {{"-", "_"}})));
}

// CLI11 gives the file precedence over the environment; here it is the other way round.
// So a setting from the environment is added to the command line, unless it is there
// already.
void AddEnvironment(const CLI::App& app, std::vector<std::string>* arguments) {
  const std::vector<std::string> given = *arguments;
  for (const CLI::Option* option : app.get_options()) {
    const std::string variable = option->get_envname();
    if (variable.empty()) continue;
    const char* value = std::getenv(variable.c_str());
    if (value == nullptr || *value == '\0') continue;
    const std::string flag = absl::StrCat("--", option->get_single_name());
    bool is_given = false;
    for (const std::string& argument : given) {
      if (argument == flag || absl::StartsWith(argument, flag + "=")) is_given = true;
    }
    // At the front, so that it belongs to the command and not to a subcommand.
    if (!is_given) arguments->insert(arguments->begin(), absl::StrCat(flag, "=", value));
  }
}

// Adds settings to the command, each with its environment variable.
class Settings {
 public:
  explicit Settings(CLI::App* app) : app_(app) {}

  template <typename T>
  CLI::Option* Add(const std::string& name, T* value, const std::string& help) {
    return Named(app_->add_option("--" + name, *value, help)->capture_default_str(),
                 name);
  }

  void AddFlag(const std::string& name, bool* value, const std::string& help) {
    Named(app_->add_flag("--" + name, *value, help), name);
  }

  // `value` is in bytes; its default must be a multiple of 1 MiB, the unit in --help.
  void AddSize(const std::string& name, int64_t* value, const std::string& help) {
    const int64_t mebibytes = *value >> 20;
    Named(app_->add_option("--" + name, *value, help)
              ->transform(CLI::AsSizeValue(false))
              ->default_str(absl::StrCat(mebibytes, "MiB"))
              ->type_name("SIZE"),
          name);
  }

  void AddDuration(const std::string& name, absl::Duration* value,
                   const std::string& help) {
    const std::string otherwise = absl::FormatDuration(*value);
    Named(app_->add_option_function<std::string>(
                  "--" + name,
                  [name, value](const std::string& text) {
                    absl::Duration parsed;
                    if (!absl::ParseDuration(text, &parsed) ||
                        parsed < absl::ZeroDuration()) {
                      throw CLI::ValidationError(
                          "--" + name, "not a duration such as 30s or 1h30m: " + text);
                    }
                    *value = parsed;
                  },
                  help)
              ->default_str(otherwise)
              ->type_name("DURATION"),
          name);
  }

  // `choices` maps each accepted text to its value.
  template <typename E>
  void AddChoice(const std::string& name, E* value, const std::string& help,
                 const std::map<std::string, E>& choices) {
    std::string otherwise;
    for (const auto& [text, choice] : choices) {
      if (choice == *value) otherwise = text;
    }
    Named(
        app_->add_option_function<std::string>(
                "--" + name,
                [value, choices](const std::string& text) { *value = choices.at(text); },
                help)
            ->check(CLI::IsMember(choices))
            ->default_str(otherwise),
        name);
  }

 private:
  CLI::Option* Named(CLI::Option* option, const std::string& name) {
    return option->envname(EnvironmentName(name));
  }

  CLI::App* const app_;
};

void AddNetworkSettings(Settings& settings, ServerConfig* c) {
  settings.Add(
      "address", &c->address,
      "Address to listen on, such as 127.0.0.1, ::1 or unix:/run/modelstore.sock");
  settings.Add("port", &c->port, "Port to listen on; 0 for any free port")
      ->check(CLI::Range(0, 65535));
  settings.Add("port-file", &c->port_file, "File to write the bound port to");
  settings.AddFlag(
      "insecure", &c->insecure,
      "Allow an address that other machines can reach, without encryption and "
      "authentication");
  settings
      .Add("max-streams", &c->max_streams,
           "Maximum number of open streams of saves, loads and operations")
      ->check(CLI::PositiveNumber);
  settings
      .Add("max-watchers", &c->max_watchers, "Maximum number of open WatchModel streams")
      ->check(CLI::PositiveNumber);
  settings
      .Add("max-streams-per-connection", &c->max_streams_per_connection,
           "Maximum number of open RPCs per connection")
      ->check(CLI::PositiveNumber);
  settings.AddDuration("idle-timeout", &c->idle_timeout,
                       "Idle time after which a stream is closed");
  settings.AddDuration(
      "stall-timeout", &c->stall_timeout,
      "Idle time after which a load is closed while other loads wait for its memory");
  settings.AddDuration(
      "keepalive-time", &c->keepalive_time,
      "Idle time after which a connection is probed; it is closed if there is no "
      "answer within 20s");
  settings.AddDuration("shutdown-deadline", &c->shutdown_deadline,
                       "Time that running RPCs have to finish after SIGTERM");
}

void AddStorageSettings(Settings& settings, ServerConfig* c) {
  settings.Add("data-dir", &c->data_dir, "Directory of the store; created if missing");
  settings.AddFlag("accept-data-loss", &c->accept_data_loss,
                   "Open a store whose catalog has lost acknowledged writes");
  settings.AddSize("reserve", &c->reserve_bytes,
                   "Disk space kept free; saves that need it are refused");
  settings.AddSize(
      "ballast", &c->ballast_bytes,
      "Size of a file that is deleted when a delete finds the disk full; 0 for none");
  settings.AddSize("pack-size", &c->pack_bytes, "Size at which a pack is sealed");
  settings.AddDuration("grace", &c->grace,
                       "Time that a deleted checkpoint stays readable for resumed loads");
  settings.AddDuration("upload-ttl", &c->upload_ttl,
                       "Idle time after which an upload is deleted");
  settings.AddDuration("start-grace", &c->start_grace,
                       "No expiry for this long after startup");
  settings.Add("max-uploads", &c->max_uploads, "Maximum number of open uploads")
      ->check(CLI::PositiveNumber);
  settings
      .Add("max-uploads-per-model", &c->max_uploads_per_model,
           "Maximum number of open uploads per model")
      ->check(CLI::PositiveNumber);
  settings.AddDuration(
      "upload-min-idle", &c->upload_min_idle,
      "Idle time after which an upload may be deleted in favor of a new one");
  settings.AddDuration("collect-interval", &c->collect_interval,
                       "Interval between automatic collections; 0s disables them");
  settings.AddDuration("reopen-interval", &c->reopen_interval,
                       "Interval between attempts to reopen storage after a fault");
  settings.AddSize(
      "scrub-rate", &c->scrub_bytes_per_second,
      "Maximum bytes per second read by the background scrub; 0 disables it");
  settings.AddDuration("scrub-period", &c->scrub_period, "Interval between full scrubs");
}

void AddResourceSettings(Settings& settings, ServerConfig* c) {
  settings.AddSize("memory-budget", &c->memory_budget_bytes,
                   "Maximum memory of messages in transit; as much again bounds what "
                   "running calls hold besides");
  settings
      .Add("storage-threads", &c->storage_threads,
           "Threads for storage I/O; 0 for twice the number of cores, at least 4")
      ->check(CLI::Range(0, 1024));
  settings
      .Add("max-queue", &c->max_queue,
           "Maximum number of RPCs that wait for a storage thread")
      ->check(CLI::PositiveNumber);
  settings.AddChoice<LogLevel>("log-level", &c->log_level, "Minimum log level",
                               {{"debug", LogLevel::kDebug},
                                {"info", LogLevel::kInfo},
                                {"warning", LogLevel::kWarning},
                                {"error", LogLevel::kError}});
  settings.AddChoice<LogFormat>("log-format", &c->log_format,
                                "text: key=value pairs; json: one object per line",
                                {{"text", LogFormat::kText}, {"json", LogFormat::kJson}});
}

}  // namespace

ParsedCommand ParseCommandLine(const std::vector<std::string>& arguments) {
  Command command;
  CLI::App app(kDescription, "modelstored");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("modelstored ") + MODELSTORE_VERSION);
  app.set_config("--config", "", "Configuration file")
      ->envname(EnvironmentName("config"));
  app.allow_config_extras(false);
  Settings settings(&app);
  AddNetworkSettings(settings, &command.config);
  AddStorageSettings(settings, &command.config);
  AddResourceSettings(settings, &command.config);

  CLI::App* health =
      app.add_subcommand("health", "Exit with 0 if a server answers SERVING");
  health->configurable(false);
  health->add_option("--address", command.health_target,
                     "host:port of the server; default: the address and port settings");
  double timeout_s = absl::ToDoubleSeconds(command.health_timeout);
  health->add_option("--timeout", timeout_s, "Seconds to wait")->capture_default_str();

  // The flags must have been declared, as each names its environment variable.
  std::vector<std::string> all = arguments;
  AddEnvironment(app, &all);
  // CLI11 pops arguments from the end of the vector.
  std::vector<std::string> reversed(all.rbegin(), all.rend());
  ParsedCommand parsed;
  try {
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    // --help and --version are errors with exit code 0 to CLI11.
    parsed.exit_code = app.exit(error, out, out) == 0 ? 0 : 2;
    parsed.text = out.str();
    return parsed;
  }
  if (health->parsed()) {
    command.kind = Command::Kind::kHealth;
    command.health_timeout = absl::Seconds(timeout_s);
    if (command.health_target.empty()) {
      // A server that listens on all addresses is checked over loopback.
      const ServerConfig& c = command.config;
      const bool any = c.address == "0.0.0.0" || c.address == "::" || c.address == "[::]";
      command.health_target = TargetOf(any ? "127.0.0.1" : c.address, c.port);
    }
  }
  parsed.command = std::move(command);
  return parsed;
}

absl::Status ValidateConfig(const ServerConfig& config) {
  if (!config.insecure && !IsLocalAddress(config.address)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--address ", config.address,
        " can be reached from other machines, and connections are neither encrypted nor "
        "authenticated: add --insecure if the network is trusted, or listen on "
        "127.0.0.1"));
  }
  if (IsUnixAddress(config.address) && !config.port_file.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--port-file cannot be used with --address ", config.address,
                     ": a unix socket has no port"));
  }
  // Each byte budget is a quarter and must hold at least two of the largest messages.
  if (config.memory_budget_bytes < 8 * kMaxMessageBytes) {
    return absl::InvalidArgumentError(absl::StrCat("--memory-budget must be at least ",
                                                   (8 * kMaxMessageBytes) >> 20, "MiB"));
  }
  if (config.data_dir.empty()) {
    return absl::InvalidArgumentError("--data-dir must not be empty");
  }
  if (config.pack_bytes < kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--pack-size must be at least ", kMaxChunkBytes >> 20, "MiB"));
  }
  if (config.reserve_bytes < 0 || config.ballast_bytes < 0) {
    return absl::InvalidArgumentError("--reserve and --ballast must not be negative");
  }
  if (config.scrub_bytes_per_second < 0) {
    return absl::InvalidArgumentError(
        "--scrub-rate must not be negative; 0 disables the scrub");
  }
  if (config.idle_timeout <= absl::ZeroDuration() ||
      config.stall_timeout <= absl::ZeroDuration() ||
      config.reopen_interval <= absl::ZeroDuration() ||
      config.scrub_period <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "--idle-timeout, --stall-timeout, --reopen-interval and --scrub-period must be "
        "positive");
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server
