// A model saved by one process and run by another that was built without its class:
// save_vgg16 and run_model of client/examples, against a real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

#include "tests/support/server_process.h"
#include "tests/support/temp_folder.h"

namespace modelstore::support {
namespace {

using testing::HasSubstr;

std::string Run(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "cannot run " + command;
  std::string output;
  std::array<char, 4096> buffer;
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.append(buffer.data(), n);
  }
  EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
  return output;
}

std::string ScoresOf(const std::string& output) {
  const size_t begin = output.find("score 0: ");
  return begin == std::string::npos ? "none in " + output : output.substr(begin);
}

// What both show of one model, bit for bit, as hexadecimal floats.
void ExpectSameScores(const std::string& size_flags, const std::string& image) {
  TempFolder folder("by_name");
  auto server = ServerProcess::Start({.folder = folder.path()});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string common = " --server " + (*server)->address() + " --image " + image;
  const std::string saved =
      Run(SAVE_VGG16 + common + size_flags + " --seed 5 models/vgg16");
  const std::string run = Run(RUN_MODEL + common + " models/vgg16");
  EXPECT_THAT(run, HasSubstr("VGG(\n  (features): Sequential("));
  EXPECT_THAT(run, HasSubstr("    (6): Linear(in_features="));
  EXPECT_EQ(ScoresOf(run), ScoresOf(saved));
}

TEST(ByNameAlone, AnotherProcessWithoutTheClassShowsTheSameScores) {
  ExpectSameScores(" --channels 4 --hidden 16", "40");
}

TEST(ByNameAlone, VGG16WithItsRealShapesShowsTheSameScores) {
  ExpectSameScores("", "64");
}

}  // namespace
}  // namespace modelstore::support
