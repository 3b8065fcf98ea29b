// Every target with the findings of the past, its seeds, and a bounded number of inputs
// damaged at random, repeatable by their printed seed.
#include <gtest/gtest.h>

#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/targets.h"
#include "tests/support/seed.h"

namespace modelstore::fuzz {
namespace {

class FuzzTest : public testing::TestWithParam<Target> {
 protected:
  static bool Run(absl::string_view input) {
    try {
      return GetParam().run(input);
    } catch (const std::exception& e) {
      ADD_FAILURE() << GetParam().name << ": " << e.what()
                    << "\ninput: " << testing::PrintToString(std::string(input));
      return false;
    }
  }

 private:
  const google::protobuf::LogSilencer silencer_;
};

TEST_P(FuzzTest, SeedsAreReadAndSomeAccepted) {
  int accepted = 0;
  size_t bytes = 0;
  for (const std::string& seed : GetParam().seeds()) {
    accepted += Run(seed) ? 1 : 0;
    bytes += seed.size();
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(bytes, 16u << 10);
}

TEST_P(FuzzTest, FindingsOfThePastHold) {
  const std::filesystem::path folder =
      std::filesystem::path(MODELSTORE_FINDINGS) / GetParam().name;
  if (!std::filesystem::exists(folder)) return;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path());
    std::ifstream file(entry.path(), std::ios::binary);
    ASSERT_TRUE(file);
    Run(std::string(std::istreambuf_iterator<char>(file), {}));
  }
}

TEST_P(FuzzTest, DamagedInputsKeepEveryProperty) {
  Mutator mutator(TestSeed(), GetParam().seeds());
  const int64_t iterations = FuzzIterations(10'000);
  int64_t accepted = 0;
  for (int64_t i = 0; i < iterations && !HasFailure(); ++i) {
    accepted += Run(mutator.Next()) ? 1 : 0;
  }
  // Both verdicts must have been tried.
  if (iterations < 1000 || HasFailure()) return;
  EXPECT_GT(accepted, iterations / 50);
  EXPECT_LT(accepted, iterations);
}

INSTANTIATE_TEST_SUITE_P(AllTargets, FuzzTest, testing::ValuesIn(Targets()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(FuzzFindings, EveryFolderIsOfATarget) {
  if (!std::filesystem::exists(MODELSTORE_FINDINGS)) return;
  for (const auto& entry : std::filesystem::directory_iterator(MODELSTORE_FINDINGS)) {
    if (!entry.is_directory()) continue;
    const std::string name = entry.path().filename();
    bool known = false;
    for (const Target& target : Targets()) known = known || name == target.name;
    EXPECT_TRUE(known) << name;
  }
}

}  // namespace
}  // namespace modelstore::fuzz
