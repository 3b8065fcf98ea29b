#include "server/core/pattern.h"

#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

bool Matches(const std::string& pattern, const std::string& section,
             const std::string& key) {
  auto compiled = KeyPattern::Compile("p", pattern);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return compiled.ok() && compiled->Matches(section, key, section + ":" + key);
}

TEST(PatternTest, WithoutASectionAPatternMeansTheModel) {
  EXPECT_TRUE(Matches("fc\\..*", "model", "fc.weight"));
  EXPECT_FALSE(Matches("fc\\..*", "optimizer", "fc.weight"));
  EXPECT_FALSE(Matches("fc", "model", "fc.weight")) << "keys are matched whole";
}

TEST(PatternTest, WithASectionItIsMatchedAgainstBoth) {
  EXPECT_TRUE(Matches("optimizer:state/.*", "optimizer", "state/0/exp_avg"));
  EXPECT_TRUE(Matches(".*:.*weight", "extra", "a.weight"));
  EXPECT_FALSE(Matches("optimizer:.*", "model", "weight"));
}

TEST(PatternTest, ColonsOfGroupsAndClassesNameNoSection) {
  EXPECT_TRUE(Matches("(?:fc|conv)\\.weight", "model", "conv.weight"));
  EXPECT_TRUE(Matches("(?i:FC)\\.weight", "model", "fc.weight"));
  EXPECT_TRUE(Matches("[[:alpha:]]+", "model", "weight"));
  EXPECT_TRUE(Matches("(?:model|extra):fc", "extra", "fc"));
}

TEST(PatternTest, ACostlyPatternIsRefusedRatherThanCompiled) {
  EXPECT_FALSE(CompilePattern("p", "((a{1000}){1000}){1000}").ok());
  EXPECT_FALSE(CompilePattern("p", std::string(100'000, 'a')).ok());
  EXPECT_FALSE(CompilePattern("p", "a**(").ok());
}

}  // namespace
}  // namespace modelstore::server
