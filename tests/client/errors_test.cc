// Errors as users of the client library read and tell them apart.
#include "modelstore/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "modelstore/lifecycle.h"
#include "proto/contract/errors.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::TensorSet;
using support::TestStore;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(StatusLineTest, IsCodeMessageAndReason) {
  EXPECT_EQ(StatusLine(absl::OkStatus()), "OK");
  EXPECT_EQ(StatusLine(LatestVersionDiffers("models/iris", 3, 4)),
            "ABORTED: models/iris: the latest version is 4, expected was 3 [LOST_RACE]");
  EXPECT_EQ(StatusLine(OverLimit("aliases", 1000, "too many aliases")),
            "RESOURCE_EXHAUSTED: too many aliases [OVER_LIMIT, maximum=1000]");
}

TEST(StatusLineTest, LeavesOutAReasonThatRepeatsTheCode) {
  EXPECT_EQ(StatusLine(DoesNotExist("model", "models/iris")),
            "NOT_FOUND: model models/iris does not exist");
  EXPECT_EQ(StatusLine(absl::UnavailableError("connection refused")),
            "UNAVAILABLE: connection refused");
}

TEST(StatusLineTest, HoldsNoEscapedDetailsAndNoLineBreaks) {
  const std::string line = StatusLine(InvalidField("manifest.tensors[3].shape", "a\nb"));
  EXPECT_EQ(line, "INVALID_ARGUMENT: manifest.tensors[3].shape: a b [INVALID_FIELD]");
}

class ErrorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto saved = support::Save(client_, "models/iris",
                               TensorSet({.seed = 1, .tensors = 1, .bytes = 1'000}));
    ASSERT_TRUE(saved.ok()) << saved.status();
  }

  TestStore store_;
  Client client_ = store_.NewClient();
};

TEST_F(ErrorsTest, AProgramLearnsWhatHoldsAVersion) {
  ASSERT_TRUE(SetAlias(client_, "models/iris/aliases/production", 1).ok());
  const absl::Status refused = client_.DeleteCheckpoint("models/iris/checkpoints/1");
  EXPECT_EQ(ReasonOf(refused), "HELD");
  EXPECT_EQ(ErrorMetadataOf(refused).at("aliases"), "1:production");
  EXPECT_THAT(StatusLine(refused), HasSubstr("held by the alias production"));
  EXPECT_THAT(StatusLine(refused), HasSubstr("[HELD, aliases=1:production"));
}

TEST_F(ErrorsTest, AProgramLearnsWhatDoesNotExist) {
  const absl::Status missing = client_.ListCheckpoints("models/none").status();
  EXPECT_EQ(ReasonOf(missing), "NOT_FOUND");
  EXPECT_THAT(ErrorMetadataOf(missing),
              UnorderedElementsAre(Pair("resource_type", "model"),
                                   Pair("resource_name", "models/none")));
}

TEST_F(ErrorsTest, AStatusFromElsewhereHasNoReason) {
  EXPECT_EQ(ReasonOf(absl::UnknownError("x")), "");
  EXPECT_THAT(ErrorMetadataOf(absl::UnknownError("x")), IsEmpty());
}

}  // namespace
}  // namespace modelstore
