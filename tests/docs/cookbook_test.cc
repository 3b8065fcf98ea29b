// The commands of deploy/grpcurl-cookbook.md against a real modelstored, without
// grpcurl, which Debian does not package: what each request says is what the server
// understands. (tests/server/run_cookbook runs them where there is a grpcurl.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "modelstore/client.h"
#include "tests/benchmarks/server_process.h"
#include "tests/docs/reflected_call.h"

namespace {

using ::testing::HasSubstr;

// Each on one line, however many it takes in the book: a backslash or an open quote
// continues it.
std::vector<std::string> Commands() {
  std::vector<std::string> commands;
  bool continues = false;
  std::ifstream in(COOKBOOK);
  for (std::string line; std::getline(in, line);) {
    if (!continues && !absl::StartsWith(line, "grpcurl ")) continue;
    if (!continues) commands.emplace_back();
    const bool backslash = absl::EndsWith(line, "\\");
    if (backslash) line.pop_back();
    std::string& command = commands.back();
    command += line;
    continues = backslash || std::count(command.begin(), command.end(), '\'') % 2 == 1;
  }
  return commands;
}

// The version that the book types by hand, over several messages.
void SaveByHand(modelstore::Client& client) {
  const float values[] = {1, 2};
  modelstore::TensorView bias;
  bias.info.key = "fc.bias";
  bias.info.shape = {2};
  bias.info.size_bytes = sizeof values;
  bias.data = values;
  modelstore::SaveContent content;
  content.tensors = {bias};
  content.metadata.loss = 0.25;
  modelstore::SectionContent hyperparameters;
  hyperparameters.name = "hyperparameters";
  hyperparameters.value = 0.1;
  content.sections = {hyperparameters};
  auto saved = client.SaveAsync("models/iris", content)
                   .Durable(modelstore::After(std::chrono::seconds(30)));
  ASSERT_TRUE(saved.ok()) << saved.status();
}

TEST(Cookbook, EveryCommandIsUnderstoodAndAnswered) {
  auto server = modelstore::bench::ServerProcess::Start(
      MODELSTORED, std::string(WORK_FOLDER) + "/cookbook");
  ASSERT_TRUE(server.ok()) << server.status();
  auto client = modelstore::Client::Connect(server->address());
  ASSERT_TRUE(client.ok()) << client.status();
  std::string answers, refusals;
  int ran = 0;
  for (std::string command : Commands()) {
    SCOPED_TRACE(command);
    if (absl::StrContains(command, "<<")) {
      SaveByHand(*client);
      continue;
    }
    // What grpcurl itself does, a variable of the shell, a stream without end.
    if (absl::StrContains(command, "describe") || absl::EndsWith(command, " list") ||
        absl::StrContains(command, " list ") || absl::StrContains(command, "-d \"") ||
        absl::StrContains(command, "-max-time")) {
      continue;
    }
    constexpr char kMayFail[] = " || true";
    const bool may_fail = absl::EndsWith(command, kMayFail);
    if (may_fail) command.resize(command.size() - (sizeof kMayFail - 1));
    auto parsed = modelstore::docs::ParseGrpcurl(command);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    auto answer = modelstore::docs::CallByReflection(*parsed, server->address());
    EXPECT_EQ(answer.ok(), !may_fail) << answer.status();
    if (answer.ok()) answers += *answer;
    absl::StrAppend(&refusals, answer.status().message(), "\n");
    ++ran;
  }
  EXPECT_GT(ran, 30);
  for (const char* expected : {"accuracy 0.97", "models/iris/checkpoints/1",
                               "models/released/checkpoints/1", "serving-7"}) {
    EXPECT_THAT(answers, HasSubstr(expected));
  }
  EXPECT_THAT(refusals, HasSubstr("is held by the alias production"));
  EXPECT_THAT(refusals, HasSubstr("models/nowhere does not exist"));
}

}  // namespace
