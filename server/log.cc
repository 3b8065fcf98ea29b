#include "server/log.h"

#include <spdlog/async.h>
#include <spdlog/async_logger.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/log_sink.h"

namespace modelstore::server {
namespace {

// Bounds the memory of the queue. Lines beyond it replace the oldest.
constexpr size_t kLogQueueLines = 8192;

absl::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      break;
  }
  return "error";
}

// Returns `text` in quotes, escaped as a JSON string.
std::string Quoted(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned char>(c));
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

// Returns a value of the text format: quoted unless it is unambiguous without quotes.
std::string TextValue(const LogField& field) {
  if (!field.text) return field.value;
  const bool bare = !field.value.empty() &&
                    std::none_of(field.value.begin(), field.value.end(), [](char c) {
                      return c == '"' || c == '=' || c == '\\' || !absl::ascii_isgraph(c);
                    });
  return bare ? field.value : Quoted(field.value);
}

}  // namespace

std::string FormatLogLine(LogFormat format, absl::string_view time, LogLevel level,
                          absl::string_view event, absl::Span<const LogField> fields) {
  if (format == LogFormat::kText) {
    std::string line =
        absl::StrCat("time=", time, " level=", LevelName(level), " event=", event);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=", TextValue(field));
    }
    return line;
  }
  std::string line = absl::StrCat("{\"time\":", Quoted(time), ",\"level\":\"",
                                  LevelName(level), "\",\"event\":", Quoted(event));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",", Quoted(field.key), ":",
                    field.text ? Quoted(field.value) : field.value);
  }
  line.push_back('}');
  return line;
}

struct Log::Sink {
  std::shared_ptr<spdlog::details::thread_pool> pool =
      std::make_shared<spdlog::details::thread_pool>(kLogQueueLines, 1);
  std::shared_ptr<DescriptorSink> out = std::make_shared<DescriptorSink>(STDERR_FILENO);
  std::shared_ptr<spdlog::async_logger> logger = std::make_shared<spdlog::async_logger>(
      "modelstore", out, pool, spdlog::async_overflow_policy::overrun_oldest);
  // Destroying the pool joins its thread, which first writes the queued lines. Close()
  // bounds how long that takes if nobody reads them.
  ~Sink() {
    out->Close();
    pool.reset();
  }
};

Log::Log(LogLevel level, LogFormat format)
    : level_(level), format_(format), sink_(std::make_unique<Sink>()) {
  // The line is formatted here: spdlog adds nothing and filters nothing.
  sink_->logger->set_pattern("%v");
  sink_->logger->set_level(spdlog::level::trace);
}

Log::~Log() = default;

void Log::Write(LogLevel level, absl::string_view event,
                absl::Span<const LogField> fields) const {
  if (!Enabled(level)) return;
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  sink_->logger->log(spdlog::level::info, spdlog::string_view_t(FormatLogLine(
                                              format_, time, level, event, fields)));
}

void LogListener::OnEvent(Severity severity, absl::string_view message) {
  const LogLevel level = severity == Severity::kInfo      ? LogLevel::kInfo
                         : severity == Severity::kWarning ? LogLevel::kWarning
                                                          : LogLevel::kError;
  log_->Write(level, "storage", {{"message", message}});
}

}  // namespace modelstore::server
