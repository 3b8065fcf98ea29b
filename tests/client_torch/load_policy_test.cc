// Each kind of difference between a checkpoint and a module, under each policy.
#include <gmock/gmock.h>

#include <tuple>

#include "tests/client_torch/server_fixture.h"
#include "tests/client_torch/tensors.h"

namespace modelstore {
namespace {

using support::Bag;
using support::BytesOf;
using support::ServerFixture;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

enum class Kind { kMissing, kUnexpected, kShape, kDType };

struct Difference {
  const char* name;
  // What differs, beside `same`, which fits.
  StateDict stored, wanted;
  const char* refusal;  // in the status
};

Difference Of(Kind kind) {
  switch (kind) {
    case Kind::kMissing:
      return {"Missing", {}, {{"odd", torch::zeros({2})}}, "missing key(s): \"odd\""};
    case Kind::kUnexpected:
      return {
          "Unexpected", {{"odd", torch::ones({2})}}, {}, "unexpected key(s): \"odd\""};
    case Kind::kShape:
      return {"Shape",
              {{"odd", torch::ones({2, 3})}},
              {{"odd", torch::zeros({3, 2})}},
              "size mismatch for odd: [2, 3] in the checkpoint, [3, 2] in the module"};
    case Kind::kDType:
      return {"DType",
              {{"odd", torch::full({2}, 1.7)}},
              {{"odd", torch::zeros({2}, torch::kLong)}},
              "dtype change for odd: float32 in the checkpoint, int64 in the module"};
  }
  return {};
}

void SetPolicy(Kind kind, Policy policy, LoadArgs& args) {
  switch (kind) {
    case Kind::kMissing:
      args.missing = policy;
      break;
    case Kind::kUnexpected:
      args.unexpected = policy;
      break;
    case Kind::kShape:
      args.shape = policy;
      break;
    case Kind::kDType:
      args.dtype = policy;
      break;
  }
}

size_t Reported(Kind kind, const LoadReport& report) {
  switch (kind) {
    case Kind::kMissing:
      return report.missing.size();
    case Kind::kUnexpected:
      return report.unexpected.size();
    case Kind::kShape:
      return report.shape_mismatch.size();
    case Kind::kDType:
      return report.dtype_change.size();
  }
  return 0;
}

size_t ReportedInAll(const LoadReport& report) {
  return report.missing.size() + report.unexpected.size() + report.shape_mismatch.size() +
         report.dtype_change.size();
}

using Param = std::tuple<Kind, Policy, bool>;

std::string ParamName(const ::testing::TestParamInfo<Param>& info) {
  const auto [kind, policy, strict] = info.param;
  const char* policies[] = {"Fail", "Report", "Ignore"};
  return std::string(Of(kind).name) + policies[static_cast<int>(policy)] +
         (strict ? "Strict" : "NotStrict");
}

class LoadPolicyTest : public ::testing::TestWithParam<Param> {
 protected:
  LoadPolicyTest() : difference_(Of(std::get<0>(GetParam()))) {
    StateDict stored = difference_.stored, wanted = difference_.wanted;
    stored.emplace_back("same", torch::ones({3}));
    same_ = torch::zeros({3});
    wanted.emplace_back("same", same_);
    bag_ = Bag(wanted);
    EXPECT_TRUE(
        SaveCheckpoint(fixture_.client(), "models/m", {.state_dict = &stored}).ok());
  }
  LoadResult Load(LoadArgs args) {
    args.module = bag_.get();
    return LoadCheckpoint(fixture_.client(), support::kLatest, args);
  }

  ServerFixture fixture_;
  Difference difference_;
  Bag bag_{nullptr};
  torch::Tensor same_;
};

TEST_P(LoadPolicyTest, DecidesTheLoadAndTheReport) {
  const auto [kind, policy, strict] = GetParam();
  LoadArgs args = {.strict = strict};
  SetPolicy(kind, policy, args);
  const LoadResult result = Load(args);
  const bool refused = policy == Policy::kFail;
  EXPECT_EQ(result.status.code(),
            refused ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kOk)
      << result.status;
  if (refused) {
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(difference_.refusal));
  }
  EXPECT_EQ(Reported(kind, result.report), policy == Policy::kIgnore ? 0u : 1u);
  EXPECT_EQ(ReportedInAll(result.report), Reported(kind, result.report))
      << result.report.ToString();
  // All that fits, or nothing.
  EXPECT_EQ(same_.eq(1).all().item<bool>(), !refused);
  EXPECT_EQ(same_._version() > 0, !refused);
  if (!difference_.wanted.empty()) {
    // A cast is done where it is allowed; the others have nothing to load.
    const float expected = kind == Kind::kDType && !refused ? 1 : 0;
    EXPECT_TRUE(difference_.wanted[0].second.eq(expected).all().item<bool>());
  }
}

INSTANTIATE_TEST_SUITE_P(
    EveryKind, LoadPolicyTest,
    ::testing::Combine(::testing::Values(Kind::kMissing, Kind::kUnexpected, Kind::kShape,
                                         Kind::kDType),
                       ::testing::Values(Policy::kFail, Policy::kReport, Policy::kIgnore),
                       ::testing::Bool()),
    ParamName);

// Where nothing is said of a kind: PyTorch's strict.
TEST(LoadPolicyDefaultTest, StrictAffectsOnlyMissingAndUnexpected) {
  for (const Kind kind :
       {Kind::kMissing, Kind::kUnexpected, Kind::kShape, Kind::kDType}) {
    for (const bool strict : {true, false}) {
      ServerFixture fixture;
      const Difference difference = Of(kind);
      SCOPED_TRACE(std::string(difference.name) + (strict ? " strict" : " not strict"));
      ASSERT_TRUE(
          SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &difference.stored})
              .ok());
      Bag bag(difference.wanted);
      const LoadResult result = LoadCheckpoint(fixture.client(), support::kLatest,
                                               {.module = bag.get(), .strict = strict});
      const bool by_strict = kind == Kind::kMissing || kind == Kind::kUnexpected;
      EXPECT_EQ(result.status.ok(), by_strict && !strict) << result.status;
      EXPECT_EQ(Reported(kind, result.report), 1u);
    }
  }
}

TEST(LoadPolicyDefaultTest, EveryReasonIsReportedAtOnceInPyTorchsOrder) {
  ServerFixture fixture;
  StateDict stored = {{"shape", torch::ones({2})}, {"extra", torch::ones({1})}};
  ASSERT_TRUE(SaveCheckpoint(fixture.client(), "models/m", {.state_dict = &stored}).ok());
  Bag bag(StateDict{{"shape", torch::zeros({3})}, {"absent", torch::zeros({1})}});
  const LoadResult result =
      LoadCheckpoint(fixture.client(), support::kLatest, {.module = bag.get()});
  EXPECT_THAT(std::string(result.status.message()),
              HasSubstr("missing key(s): \"absent\"; unexpected key(s): \"extra\"; size "
                        "mismatch for shape: [2]"));
}

}  // namespace
}  // namespace modelstore
