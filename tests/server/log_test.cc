#include "server/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace modelstore::server {
namespace {

TEST(LogTest, TextIsPairsAndQuotesWhatIsAmbiguous) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, "T", LogLevel::kInfo, "rpc",
                          {{"method", "/a/B"},
                           {"ms", 1.5},
                           {"message", "two words"},
                           {"empty", ""},
                           {"quote", "a\"b"}}),
            "time=T level=info event=rpc method=/a/B ms=1.5 message=\"two words\" "
            "empty=\"\" quote=\"a\\\"b\"");
}

TEST(LogTest, NoValueBeginsALineOfItsOwn) {
  const std::string forged = "x\ntime=T level=info event=forged";
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    const std::string line =
        FormatLogLine(format, "T", LogLevel::kWarning, "rpc", {{"message", forged}});
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  }
}

TEST(LogTest, JsonIsAnObjectWithNumbersAsNumbers) {
  EXPECT_EQ(FormatLogLine(LogFormat::kJson, "T", LogLevel::kError, "rpc",
                          {{"bytes", int64_t{7}}, {"message", "a \"b\"\t\\"}}),
            "{\"time\":\"T\",\"level\":\"error\",\"event\":\"rpc\",\"bytes\":7,"
            "\"message\":\"a \\\"b\\\"\\u0009\\\\\"}");
}

// stderr is a pipe, or a terminal, for a scope.
class PipedStderr {
 public:
  enum class Kind { kPipe, kTerminal };
  explicit PipedStderr(Kind kind = Kind::kPipe) {
    if (kind == Kind::kPipe) {
      EXPECT_EQ(pipe(ends_.data()), 0);
    } else {
      EXPECT_EQ(openpty(&ends_[0], &ends_[1], nullptr, nullptr, nullptr), 0);
    }
    kept_ = dup(STDERR_FILENO);
    dup2(ends_[1], STDERR_FILENO);
    close(ends_[1]);
  }
  ~PipedStderr() {
    dup2(kept_, STDERR_FILENO);
    close(kept_);
    CloseReader();
  }
  void CloseReader() {
    if (ends_[0] >= 0) close(ends_[0]);
    ends_[0] = -1;
  }
  int reader() const { return ends_[0]; }
  // What is in the pipe now.
  std::string Read() {
    fcntl(ends_[0], F_SETFL, O_NONBLOCK);
    std::string all;
    std::array<char, 4096> block{};
    for (ssize_t n = 0; (n = read(ends_[0], block.data(), block.size())) > 0;) {
      all.append(block.data(), static_cast<size_t>(n));
    }
    return all;
  }

 private:
  std::array<int, 2> ends_ = {-1, -1};
  int kept_ = -1;
};

TEST(LogTest, AReaderThatTakesNothingHoldsNeitherWritersNorTheEnd) {
  PipedStderr pipe;
  {
    Log log(LogLevel::kInfo, LogFormat::kText);
    const std::string value(1000, 'x');
    for (int i = 0; i < 20'000; ++i) {
      log.Write(LogLevel::kInfo, "line", {{"value", value}});
    }
  }
  const std::string read = pipe.Read();
  EXPECT_GT(read.size(), 32u << 10) << "what fits into the pipe was written";
  EXPECT_LT(read.size(), 2u << 20) << "and the rest dropped";
}

absl::Duration TimeToEnd(int lines) {
  auto log = std::make_unique<Log>(LogLevel::kInfo, LogFormat::kText);
  const std::string value(1000, 'x');
  for (int i = 0; i < lines; ++i) {
    log->Write(LogLevel::kInfo, "line", {{"value", value}});
  }
  const absl::Time begin = absl::Now();
  log.reset();
  return absl::Now() - begin;
}

// poll() calls a terminal writable that has room for less than a line.
TEST(LogTest, ABlockedTerminalDoesNotDelayTheExit) {
  PipedStderr terminal(PipedStderr::Kind::kTerminal);
  std::atomic<bool> ended = false;
  // Without it a failure would be a wait without end.
  std::thread rescue([&] {
    for (int i = 0; i < 100 && !ended; ++i) absl::SleepFor(absl::Milliseconds(100));
    if (!ended) terminal.CloseReader();
  });
  EXPECT_LT(TimeToEnd(1000), absl::Seconds(6));
  ended = true;
  rescue.join();
}

TEST(LogTest, ASlowReaderDoesNotHoldTheEnd) {
  const auto before = signal(SIGPIPE, SIG_IGN);
  PipedStderr pipe;
  std::atomic<bool> ended = false;
  std::thread reader([&] {
    std::array<char, 200> block{};
    for (int i = 0; i < 1000 && !ended; ++i) {
      if (read(pipe.reader(), block.data(), block.size()) <= 0) break;
      absl::SleepFor(absl::Milliseconds(10));
    }
    if (!ended) pipe.CloseReader();
  });
  EXPECT_LT(TimeToEnd(2000), absl::Seconds(6));
  ended = true;
  reader.join();
  signal(SIGPIPE, before);
}

TEST(LogTest, ALostLogReaderLosesOnlyLines) {
  const auto before = signal(SIGPIPE, SIG_IGN);
  PipedStderr pipe;
  pipe.CloseReader();
  {
    Log log(LogLevel::kInfo, LogFormat::kText);
    for (int i = 0; i < 100; ++i) log.Write(LogLevel::kInfo, "line");
  }
  signal(SIGPIPE, before);
}

TEST(LogTest, ALineLongerThanAPipeTakesAtOnceIsWrittenWhole) {
  PipedStderr pipe;
  {
    Log log(LogLevel::kInfo, LogFormat::kText);
    log.Write(LogLevel::kInfo, "long", {{"value", std::string(20'000, 'x')}});
  }
  const std::string read = pipe.Read();
  EXPECT_EQ(std::count(read.begin(), read.end(), 'x'), 20'000);
  EXPECT_EQ(read.back(), '\n');
}

TEST(LogTest, LinesBelowTheLevelAreLeftOut) {
  testing::internal::CaptureStderr();
  {
    Log log(LogLevel::kWarning, LogFormat::kText);
    log.Write(LogLevel::kInfo, "quiet");
    log.Write(LogLevel::kError, "loud", {{"n", 1}});
  }
  const std::string written = testing::internal::GetCapturedStderr();
  EXPECT_EQ(written.find("quiet"), std::string::npos);
  EXPECT_NE(written.find("level=error event=loud n=1\n"), std::string::npos) << written;
}

}  // namespace
}  // namespace modelstore::server
