#include "server/log.h"

#include <gtest/gtest.h>

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
