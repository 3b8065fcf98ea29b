// Values as Python has them, in the forms that the contract gives them.
#include <gmock/gmock.h>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"
#include "tests/interop/cases.h"

namespace modelstore::interop {
namespace {

using support::ServerFixture;

class PythonsValuesTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { cases_ = AskPython("values"); }

  // As Python prints it, but for objects, which it does not print alike.
  static std::string Text(size_t i) {
    const Case& c = cases_.at(i);
    return c.trees.at(c.name).ToString();
  }

  static std::vector<Case> cases_;
};
std::vector<Case> PythonsValuesTest::cases_;

TEST_F(PythonsValuesTest, EveryKindComesBackWithItsTensors) {
  ASSERT_EQ(cases_.size(), 11u);
  ServerFixture fixture;
  SaveArgs args;
  for (const Case& c : cases_) args.sections[c.name] = TreeOf(c, c.name);
  auto saved = SaveCheckpoint(fixture.client(), "models/m", args);
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (const Case& c : cases_) {
    SCOPED_TRACE(c.name);
    LoadResult loaded = LoadCheckpoint(fixture.client(), support::kLatest, {},
                                       {.selection = {.sections = {c.name}}});
    ASSERT_TRUE(loaded.status.ok()) << loaded.status;
    const ValueTree& tree = loaded.sections.at(c.name);
    const ValueTree stored = TreeOf(c, c.name);
    EXPECT_EQ(tree.value, stored.value) << tree.value.ToString();
    EXPECT_EQ(tree.tensors.size(), stored.tensors.size());
    for (const auto& [key, tensor] : stored.tensors) {
      ASSERT_EQ(tree.tensors.count(key), 1u) << key;
      EXPECT_TRUE(torch::equal(tree.tensors.at(key), tensor)) << key;
    }
  }
}

TEST_F(PythonsValuesTest, ANestedStateDictKeepsItsMetadata) {
  for (const Case& c : cases_) {
    if (c.name != "state_dict_in_a_dict") continue;
    const Value* metadata = c.trees.at(c.name).Find("net")->FindAttribute("_metadata");
    ASSERT_NE(metadata, nullptr);
    EXPECT_EQ(metadata->Find("0")->GetInt("version").value(), 1);
  }
}

TEST_F(PythonsValuesTest, ObjectsArePrintedWithTheirTypeAndParts) {
  EXPECT_EQ(Text(6),
            "[collections.defaultdict(list, {'a': [1]}), "
            "collections.Counter({30: 1, 80: 2}), OrderedDict([('a', 1)])]");
  EXPECT_EQ(Text(7),
            "{'a': numpy.ndarray(<tensor a>), 'i': numpy.ndarray(<tensor i>), "
            "'s': numpy.float64(0.1), 'b': numpy.bool_(True), 't': numpy.str_('x')}");
}

}  // namespace
}  // namespace modelstore::interop
