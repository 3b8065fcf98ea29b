// Structured logs: one line an event, as `key=value` pairs or a JSON object. Secrets and
// payloads must not be logged. A thread of its own writes the lines; if it falls behind,
// the oldest queued lines are dropped, so that a full pipe blocks neither an RPC nor the
// shutdown.
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

// A key with a text or a number. `key` is not copied and must outlive the call of
// Write().
struct LogField {
  LogField(absl::string_view k, absl::string_view v) : key(k), value(v), text(true) {}
  LogField(absl::string_view k, const std::string& v) : key(k), value(v), text(true) {}
  LogField(absl::string_view k, const char* v) : key(k), value(v), text(true) {}
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  LogField(absl::string_view k, Number v) : key(k), value(absl::StrCat(v)), text(false) {}

  absl::string_view key;
  std::string value;
  bool text;  // false: a number, which is never quoted
};

// Thread-safe.
class Log {
 public:
  // Writes lines of at least `level` to stderr.
  Log(LogLevel level, LogFormat format);
  // Writes the queued lines, for at most 2 s if the reader is slow.
  ~Log();

  bool Enabled(LogLevel level) const { return level >= level_; }
  // Queues a line; never blocks on output. `event` is a short identifier in snake_case.
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

// Returns the line without a newline. Control characters are escaped, so that an event is
// always one line.
std::string FormatLogLine(LogFormat format, absl::string_view time, LogLevel level,
                          absl::string_view event, absl::Span<const LogField> fields);

// Logs the events of storage. `log` is not owned. Thread-safe.
class LogListener final : public storage::Listener {
 public:
  explicit LogListener(const Log* log) : log_(log) {}
  void OnEvent(Severity severity, absl::string_view message) override;

 private:
  const Log* const log_;
};

}  // namespace modelstore::server
