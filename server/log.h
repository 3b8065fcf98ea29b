// Structured logs: one line an event, `key=value` pairs or a JSON object. Never
// payloads. Lines are written by a thread of their own; when it falls behind,
// the oldest waiting lines go: a full pipe never blocks an RPC, nor the shutdown.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "storage/api/listener.h"

namespace modelstore::server {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kText, kJson };

struct LogField {
  LogField(absl::string_view k, absl::string_view v) : key(k), value(v), text(true) {}
  LogField(absl::string_view k, const std::string& v) : key(k), value(v), text(true) {}
  LogField(absl::string_view k, const char* v) : key(k), value(v), text(true) {}
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  LogField(absl::string_view k, Number v) : key(k), value(absl::StrCat(v)), text(false) {}

  absl::string_view key;
  std::string value;
  bool text;
};

// Thread-safe.
class Log {
 public:
  // To stderr.
  Log(LogLevel level, LogFormat format);
  ~Log();

  bool Enabled(LogLevel level) const { return level >= level_; }
  void Write(LogLevel level, absl::string_view event,
             absl::Span<const LogField> fields = {}) const;
  void Write(LogLevel level, absl::string_view event,
             std::initializer_list<LogField> fields) const {
    Write(level, event, absl::MakeConstSpan(fields.begin(), fields.size()));
  }

 private:
  struct Sink;
  const LogLevel level_;
  const LogFormat format_;
  std::unique_ptr<Sink> sink_;
};

// One line, without its end.
std::string FormatLogLine(LogFormat format, absl::string_view time, LogLevel level,
                          absl::string_view event, absl::Span<const LogField> fields);

// Storage's events as lines. `log` is not owned.
class LogListener final : public storage::Listener {
 public:
  explicit LogListener(const Log* log) : log_(log) {}
  void OnEvent(Severity severity, absl::string_view message) override;

 private:
  const Log* const log_;
};

}  // namespace modelstore::server
