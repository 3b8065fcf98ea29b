#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/support/temp_folder.h"

namespace modelstore::server {
namespace {

using ::testing::HasSubstr;

// Sets an environment variable for a scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    setenv(name, value, 1);
  }
  ~Environment() { unsetenv(name_); }

 private:
  const char* const name_;
};

ServerConfig Parsed(const std::vector<std::string>& arguments) {
  const ParsedCommand parsed = ParseCommandLine(arguments);
  EXPECT_TRUE(parsed.command.has_value()) << parsed.text;
  return parsed.command ? parsed.command->config : ServerConfig();
}

std::string Refused(const std::vector<std::string>& arguments) {
  const ParsedCommand parsed = ParseCommandLine(arguments);
  EXPECT_FALSE(parsed.command.has_value());
  EXPECT_NE(parsed.exit_code, 0);
  return parsed.text;
}

TEST(ConfigTest, FlagsPrecedeTheEnvironmentWhichPrecedesTheFile) {
  support::TempFolder folder("config");
  const std::string file = folder.path() + "/modelstored.toml";
  std::ofstream(file) << "port = 1001\nmax-uploads = 11\nmax-streams = 21\n"
                         "log-format = \"json\"\n";
  const Environment config("MODELSTORE_CONFIG", file.c_str());
  const Environment port("MODELSTORE_PORT", "1002");
  const Environment uploads("MODELSTORE_MAX_UPLOADS", "12");
  const ServerConfig parsed = Parsed({"--port", "1003"});
  EXPECT_EQ(parsed.port, 1003);
  EXPECT_EQ(parsed.max_uploads, 12);
  EXPECT_EQ(parsed.max_streams, 21);
  EXPECT_EQ(parsed.log_format, LogFormat::kJson);
  EXPECT_EQ(Parsed({"--port=1004"}).port, 1004);
}

TEST(ConfigTest, OnlyANumericLoopbackAddressLocalhostOrAUnixSocketIsLocal) {
  for (const char* local :
       {"127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "unix:/run/m.sock"}) {
    ServerConfig config;
    config.address = local;
    EXPECT_EQ(ValidateConfig(config), absl::OkStatus()) << local;
  }
  for (const char* open : {"0.0.0.0", "::", "10.0.0.1", "127.evil.example", "127.0.0.1.x",
                           "localhost.example", "::ffff:10.0.0.1", ""}) {
    ServerConfig config;
    config.address = open;
    EXPECT_THAT(ValidateConfig(config).message(), HasSubstr("--insecure")) << open;
    config.insecure = true;
    EXPECT_EQ(ValidateConfig(config), absl::OkStatus()) << open;
  }
}

TEST(ConfigTest, HealthChecksTheListenAddress) {
  const auto target = [](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = flags;
    arguments.push_back("health");
    const ParsedCommand parsed = ParseCommandLine(arguments);
    return parsed.command ? parsed.command->health_target : parsed.text;
  };
  EXPECT_EQ(target({"--port", "7"}), "127.0.0.1:7");
  EXPECT_EQ(target({"--address", "::1", "--port", "7"}), "[::1]:7");
  EXPECT_EQ(target({"--address", "[::1]", "--port", "7"}), "[::1]:7");
  EXPECT_EQ(target({"--address", "::", "--port", "7"}), "127.0.0.1:7");
  EXPECT_EQ(target({"--address", "unix:/run/m.sock"}), "unix:/run/m.sock");
}

TEST(ConfigTest, AUnixSocketHasNoPortToWriteToAFile) {
  ServerConfig config;
  config.address = "unix:/run/m.sock";
  config.port_file = "/tmp/port";
  EXPECT_THAT(ValidateConfig(config).message(), HasSubstr("has no port"));
}

TEST(ConfigTest, TheScrubHasARateAndAPeriodAndCanBeLeftOut) {
  EXPECT_GT(ServerConfig().scrub_bytes_per_second, 0) << "on, unless told otherwise";
  const ServerConfig parsed = Parsed({"--scrub-rate", "2MiB", "--scrub-period", "24h"});
  EXPECT_EQ(parsed.scrub_bytes_per_second, 2 << 20);
  EXPECT_EQ(parsed.scrub_period, absl::Hours(24));
  EXPECT_TRUE(ValidateConfig(Parsed({"--scrub-rate", "0"})).ok());
  ServerConfig config;
  config.scrub_bytes_per_second = -1;
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("--scrub-rate"));
  config = ServerConfig();
  config.scrub_period = absl::ZeroDuration();
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("--scrub-period"));
}

TEST(ConfigTest, SizesDurationsAndFlagsAreReadFromEverySource) {
  const Environment insecure("MODELSTORE_INSECURE", "true");
  const Environment grace("MODELSTORE_GRACE", "5m");
  const ServerConfig parsed =
      Parsed({"--memory-budget", "64MiB", "--upload-ttl", "1h30m", "--ballast", "0"});
  EXPECT_TRUE(parsed.insecure);
  EXPECT_EQ(parsed.grace, absl::Minutes(5));
  EXPECT_EQ(parsed.memory_budget_bytes, 64 << 20);
  EXPECT_EQ(parsed.upload_ttl, absl::Minutes(90));
  EXPECT_EQ(parsed.ballast_bytes, 0);
}

TEST(ConfigTest, WhatIsNotUnderstoodIsRefusedByName) {
  EXPECT_THAT(Refused({"--prot", "1"}), HasSubstr("--prot"));
  EXPECT_THAT(Refused({"--port", "70000"}), HasSubstr("--port"));
  EXPECT_THAT(Refused({"--grace", "soon"}), HasSubstr("--grace"));
  EXPECT_THAT(Refused({"--log-level", "loud"}), HasSubstr("--log-level"));
  EXPECT_THAT(Refused({"--config", "/nowhere/at-all.toml"}), HasSubstr("nowhere"));
  support::TempFolder folder("config");
  const std::string file = folder.path() + "/bad.toml";
  std::ofstream(file) << "prot = 1\n";
  EXPECT_THAT(Refused({"--config", file}), HasSubstr("prot"));
}

TEST(ConfigTest, HelpNamesEverySettingItsDefaultAndItsVariable) {
  const ParsedCommand help = ParseCommandLine({"--help"});
  EXPECT_FALSE(help.command.has_value());
  EXPECT_EQ(help.exit_code, 0);
  for (const char* text : {"--address",
                           "--port",
                           "--port-file",
                           "--insecure",
                           "--data-dir",
                           "--accept-data-loss",
                           "--reserve",
                           "--ballast",
                           "--grace",
                           "--upload-ttl",
                           "--max-uploads",
                           "--memory-budget",
                           "--storage-threads",
                           "--log-level",
                           "--log-format",
                           "--shutdown-deadline",
                           "--collect-interval",
                           "--idle-timeout",
                           "MODELSTORE_MEMORY_BUDGET",
                           "256MiB",
                           "7070",
                           "health"}) {
    EXPECT_THAT(help.text, HasSubstr(text));
  }
}

TEST(ConfigTest, NonLocalAddressesNeedAFlag) {
  ServerConfig config;
  for (const char* address : {"0.0.0.0", "::", "192.168.1.5", "example.com"}) {
    config.address = address;
    config.insecure = false;
    const absl::Status status = ValidateConfig(config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--insecure"));
    config.insecure = true;
    EXPECT_TRUE(ValidateConfig(config).ok()) << address;
  }
  config.insecure = false;
  for (const char* address : {"127.0.0.1", "127.0.0.2", "localhost", "::1"}) {
    config.address = address;
    EXPECT_TRUE(ValidateConfig(config).ok()) << address;
  }
}

TEST(ConfigTest, SettingsThatCannotWorkAreRefused) {
  ServerConfig config;
  config.memory_budget_bytes = 1 << 20;
  EXPECT_FALSE(ValidateConfig(config).ok());
  config = ServerConfig();
  config.idle_timeout = absl::ZeroDuration();
  EXPECT_FALSE(ValidateConfig(config).ok());
  config = ServerConfig();
  config.pack_bytes = 1;
  EXPECT_FALSE(ValidateConfig(config).ok());
}

TEST(ConfigTest, HealthChecksTheConfiguredServerByDefault) {
  const Environment port("MODELSTORE_PORT", "1234");
  const Environment address("MODELSTORE_ADDRESS", "0.0.0.0");
  const ParsedCommand own = ParseCommandLine({"health"});
  ASSERT_TRUE(own.command.has_value()) << own.text;
  EXPECT_EQ(own.command->kind, Command::Kind::kHealth);
  EXPECT_EQ(own.command->health_target, "127.0.0.1:1234");
  const ParsedCommand other =
      ParseCommandLine({"health", "--address", "box:9", "--timeout", "0.5"});
  ASSERT_TRUE(other.command.has_value()) << other.text;
  EXPECT_EQ(other.command->health_target, "box:9");
  EXPECT_EQ(other.command->health_timeout, absl::Milliseconds(500));
}

}  // namespace
}  // namespace modelstore::server
