// save_vgg16 and transfer_learning of client/examples, against a real server.
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
using testing::Not;

std::string OutputOf(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return "cannot run " + command;
  std::string output;
  std::array<char, 4096> buffer;
  for (size_t n; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.append(buffer.data(), n);
  }
  EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
  return output;
}

TEST(TransferLearning, WorksFromNothingButTheStore) {
  TempFolder folder("transfer_learning");
  auto server = ServerProcess::Start({.folder = folder.path()});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string common = " --server " + (*server)->address() + " --image 32 ";
  OutputOf(SAVE_VGG16 + common + "--channels 4 --hidden 16 --seed 5 models/vgg16");
  const std::string output =
      OutputOf(TRANSFER_LEARNING + common + "--classes 7 --epochs 4 models/vgg16");
  EXPECT_THAT(output, HasSubstr("(6): Linear(in_features=16, out_features=1000"));
  EXPECT_THAT(output, HasSubstr("(6): Linear(in_features=16, out_features=7"));
  // 16 * 7 weights and 7 biases of 4 bytes.
  EXPECT_THAT(output, HasSubstr("checkpoints/2: 476 bytes of new tensors"));
  EXPECT_THAT(output, HasSubstr("models/vgg16/checkpoints/6: epoch 3"));
  // 13 convolutions are frozen; the classifier's 3 layers are not.
  EXPECT_THAT(output, HasSubstr("checkpoints/6: 26 tensors equal, 6 not"));
  EXPECT_THAT(output, Not(HasSubstr("model:features")));
  EXPECT_THAT(output, HasSubstr("checkpoints/7: average of 3 versions"));
  EXPECT_THAT(output, HasSubstr("checkpoints/7 MODIFIED\n    {\"average\""));
  EXPECT_THAT(output, HasSubstr("checkpoints/2 MODIFIED\n    {\"replace_module\""));
  EXPECT_THAT(output, HasSubstr("checkpoints/1 SAVED"));
}

}  // namespace
}  // namespace modelstore::support
