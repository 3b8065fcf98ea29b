// What is refused before or in place of doing nothing: empty saves, selections without a
// match, text that is not UTF-8; and lists that may be looped over in one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <type_traits>

#include "modelstore/inspect.h"
#include "modelstore/lifecycle.h"
#include "modelstore/modify.h"
#include "modelstore/retention.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kNotUtf8[] = "caf\xe9";

class RefusalsTest : public ::testing::Test {
 protected:
  void SaveOne() {
    auto saved = support::Save(client_, "models/m", state_);
    ASSERT_TRUE(saved.ok()) << saved.status();
    name_ = saved->name;
  }
  absl::Status Refusal(const std::function<void(SaveContent&, SaveOptions&)>& change) {
    SaveContent content = state_.Content();
    SaveOptions options;
    change(content, options);
    return client_.SaveAsync("models/m", content, options)
        .Durable(TestDeadline())
        .status();
  }
  // INVALID_ARGUMENT that names `field`; protobuf prints nothing.
  static void ExpectNamed(const std::string& field,
                          const std::function<absl::Status()>& f) {
    ::testing::internal::CaptureStderr();
    const absl::Status s = f();
    const std::string printed = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << field << ": " << s;
    EXPECT_THAT(std::string(s.message()), HasSubstr(field));
    EXPECT_THAT(std::string(s.message()), HasSubstr("not UTF-8 at byte 3")) << field;
    EXPECT_EQ(printed, "") << field;
  }

  TestStore store_;
  Client client_ = store_.NewClient();
  const TensorSet state_{{.seed = 1, .tensors = 4, .bytes = 10'000}};
  std::string name_;
};

TEST_F(RefusalsTest, ASaveOfNothingIsRefusedUnlessItIsMeant) {
  SaveOne();
  const absl::Status s =
      client_.SaveAsync("models/m", {}).Durable(TestDeadline()).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("nothing to save"));
  EXPECT_EQ(client_.GetCheckpoint("models/m/checkpoints/latest")->name, name_);
  SaveOptions options;
  options.allow_empty = true;
  EXPECT_TRUE(client_.SaveAsync("models/m", {}, options).Durable(TestDeadline()).ok());
}

TEST_F(RefusalsTest, ADistributedSaveOfNothingIsRefusedUnlessItIsMeant) {
  SaveOptions options;
  options.contribution_count = 2;
  for (const bool allow_empty : {false, true}) {
    options.request_id = allow_empty ? "meant" : "mistake";
    options.allow_empty = allow_empty;
    options.contribution = 0;
    const SaveHandle zero = client_.SaveAsync("models/m", {}, options);
    options.contribution = 1;
    Client second = store_.NewClient();
    const SaveHandle one = second.SaveAsync("models/m", {}, options);
    const absl::Status s = zero.Durable(TestDeadline()).status();
    EXPECT_EQ(s.code(),
              allow_empty ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument)
        << s;
    if (!allow_empty) {
      EXPECT_THAT(std::string(s.message()), HasSubstr("allow_empty"));
      one.Cancel();
    }
    EXPECT_EQ(one.Durable(TestDeadline()).ok(), allow_empty);
  }
}

TEST_F(RefusalsTest, AVersionOfSectionsOnlyIsNotEmpty) {
  SaveContent content;
  content.sections.push_back({.name = "rng", .value = Value(int64_t{1}), .metadata = {}});
  EXPECT_TRUE(client_.SaveAsync("models/m", content).Durable(TestDeadline()).ok());
}

TEST_F(RefusalsTest, AnIncludeThatMatchesNothingIsNamed) {
  SaveOne();
  const std::string key = state_.entries()[0].info.key;
  for (const std::vector<std::string>& include : {std::vector<std::string>{"no_such.*"},
                                                  {"nosuchkey"},
                                                  {key, "no_such.*"},
                                                  {"ema:.*"}}) {
    const absl::Status s =
        client_.PlanLoad(name_, {.selection = {.include = include}}).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kNotFound) << s;
    EXPECT_THAT(std::string(s.message()), HasSubstr(include.back()));
    EXPECT_THAT(std::string(s.message()), HasSubstr(name_));
  }
  auto plan = client_.PlanLoad(
      name_, {.selection = {.include = {"no_such.*"}, .allow_unmatched = true}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->tensors().empty());
}

TEST_F(RefusalsTest, ExcludesThatLeaveNothingAreRefused) {
  SaveOne();
  const absl::Status s =
      client_.PlanLoad(name_, {.selection = {.exclude = {".*:.*"}}}).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("exclude_patterns"));
  EXPECT_TRUE(
      client_
          .PlanLoad(name_, {.selection = {.exclude = {".*:.*"}, .allow_unmatched = true}})
          .ok());
  // One that drops nothing does what it says.
  EXPECT_TRUE(client_.PlanLoad(name_, {.selection = {.exclude = {"no_such.*"}}}).ok());
}

TEST_F(RefusalsTest, SectionsAndSlicesOfWhatIsNotStoredAreNamed) {
  SaveOne();
  absl::Status s = client_.PlanLoad(name_, {.selection = {.sections = {"ema"}}}).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kNotFound) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("ema"));
  s = client_.PlanLoad(name_, {.slices = {{"model:nosuch", 0, 1}}}).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kNotFound) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("model:nosuch"));
}

TEST_F(RefusalsTest, AVerificationOfNothingIsRefused) {
  SaveOne();
  const VerifyOptions none = {.selection = {.include = {"no_such.*"}}};
  EXPECT_TRUE(absl::IsNotFound(VerifyCheckpoint(client_, name_, none).status()));
  const CompareOptions compare = {.selection = {.include = {"no_such.*"}}};
  EXPECT_TRUE(
      absl::IsNotFound(CompareCheckpoints(client_, name_, name_, compare).status()));
}

TEST_F(RefusalsTest, AKeyThatIsGivenTwiceIsCalledSo) {
  const absl::Status s =
      Refusal([](SaveContent& c, SaveOptions&) { c.tensors.push_back(c.tensors[0]); });
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("the key is given twice"));
  EXPECT_THAT(std::string(s.message()), HasSubstr(state_.entries()[0].info.key));
  EXPECT_THAT(std::string(s.message()), Not(HasSubstr("overlap")));
}

TEST_F(RefusalsTest, TextThatIsNotUtf8IsNamedInEverySave) {
  const auto refusal = [&](auto change) {
    return [this, change] {
      return Refusal([&](SaveContent& c, SaveOptions& o) { change(c, o); });
    };
  };
  using C = SaveContent;
  using O = SaveOptions;
  ExpectNamed("description",
              refusal([](C& c, O&) { c.metadata.description = kNotUtf8; }));
  ExpectNamed("labels[\"run\"]",
              refusal([](C& c, O&) { c.metadata.labels["run"] = kNotUtf8; }));
  ExpectNamed("labels[\"caf?\"]",
              refusal([](C& c, O&) { c.metadata.labels[kNotUtf8] = "x"; }));
  ExpectNamed("metrics[\"caf?\"]",
              refusal([](C& c, O&) { c.metadata.metrics[kNotUtf8] = 1; }));
  ExpectNamed("framework", refusal([](C& c, O&) { c.framework = kNotUtf8; }));
  ExpectNamed("code_commit", refusal([](C& c, O&) { c.code_commit = kNotUtf8; }));
  ExpectNamed("base_checkpoint", refusal([](C&, O& o) { o.base_checkpoint = kNotUtf8; }));
  ExpectNamed("tensor model:caf?: key",
              refusal([](C& c, O&) { c.tensors[0].info.key = kNotUtf8; }));
  ExpectNamed("section", refusal([](C& c, O&) { c.tensors[0].info.section = kNotUtf8; }));
  ExpectNamed("tied_to", refusal([](C& c, O&) { c.tensors[0].info.tied_to = kNotUtf8; }));
  ExpectNamed(
      "section \"extra\"", refusal([](C& c, O&) {
        c.sections.push_back(
            {.name = "extra", .value = Value(std::string(kNotUtf8)), .metadata = {}});
      }));
  ExpectNamed("section caf?.name", refusal([](C& c, O&) {
                c.sections.push_back(
                    {.name = kNotUtf8, .value = Value(int64_t{1}), .metadata = {}});
              }));
  ExpectNamed(
      "section \"extra\", metadata", refusal([](C& c, O&) {
        c.sections.push_back(
            {.name = "extra", .value = {}, .metadata = Value(std::string(kNotUtf8))});
      }));
  EXPECT_TRUE(absl::IsNotFound(client_.GetModel("models/m").status()));
}

TEST_F(RefusalsTest, TextThatIsNotUtf8IsNamedInEveryOtherCall) {
  SaveOne();
  const std::string bad = kNotUtf8;
  ExpectNamed("description",
              [&] { return client_.CreateModel("n", {.description = bad}).status(); });
  ExpectNamed("name", [&] { return client_.GetModel(bad).status(); });
  ExpectNamed("prefix", [&] { return client_.ListModels({.prefix = bad}).status(); });
  ExpectNamed("parent", [&] { return client_.ListCheckpoints(bad).status(); });
  ExpectNamed("include_patterns[0]", [&] {
    return client_.PlanLoad(name_, {.selection = {.include = {bad}}}).status();
  });
  ExpectNamed("sections[0]", [&] {
    return client_.PlanLoad(name_, {.selection = {.sections = {bad}}}).status();
  });
  ExpectNamed("selection.keys[0]", [&] {
    return client_.PlanLoad(name_, {.selection = {.keys = {bad}}}).status();
  });
  ExpectNamed("section", [&] { return client_.GetSection(name_, bad).status(); });
  ExpectNamed("slices[0].tensor", [&] {
    return client_.PlanLoad(name_, {.slices = {{bad, 0, 1}}}).status();
  });
  ExpectNamed("device",
              [&] { return client_.PlanLoad(name_, {.device = bad}).status(); });
  ExpectNamed("note", [&] {
    return SetAlias(client_, "models/m/aliases/a", 1, {.note = bad}).status();
  });
  ExpectNamed("holder", [&] {
    return AcquireLease(client_, name_, bad, std::chrono::minutes(1)).status();
  });
  ExpectNamed("labels[\"k\"]", [&] {
    return client_
        .UpdateCheckpoint(name_,
                          {.labels = std::map<std::string, std::string>{{"k", bad}}})
        .status();
  });
  ExpectNamed("description", [&] {
    return CopyCheckpoint(client_, name_, "models/c", {.metadata = {.description = bad}})
        .status();
  });
  ExpectNamed("metric", [&] {
    return SetRetentionPolicy(client_, "models/m", {.keep_best = 1, .metric = bad});
  });
  ExpectNamed("metric", [&] {
    return PruneCheckpoints(client_, "models/m",
                            {.policy = RetentionPolicy{.keep_best = 1, .metric = bad}})
        .status();
  });
  ExpectNamed("exclude_patterns[0]", [&] {
    return VerifyCheckpoint(client_, name_, {.selection = {.exclude = {bad}}}).status();
  });
  ExpectNamed("edits[1].drop_keys.patterns[0]", [&] {
    return ModifyCheckpoint(client_, name_, EditList().DropKeys({"x"}).DropKeys({bad}))
        .status();
  });
  ExpectNamed("description", [&] {
    ModifyOptions options;
    options.metadata.description = bad;
    return ModifyCheckpoint(client_, name_, EditList().Cast(DType::kBfloat16), options)
        .status();
  });
}

// The example at the top of client.h, and what one is tempted to make of it.
TEST_F(RefusalsTest, AListMayBeLoopedOverWhereItIsAskedFor) {
  SaveOne();
  SaveOne();
  auto* const client = &client_;
  auto checkpoints = client->ListCheckpoints("models/m");
  ASSERT_TRUE(checkpoints.ok());
  std::vector<std::string> names;
  for (const auto& c : *checkpoints) names.push_back(c.name);
  std::vector<std::string> at_once, by_value;
  for (const auto& c : *client->ListCheckpoints("models/m")) at_once.push_back(c.name);
  for (const auto& c : client->ListCheckpoints("models/m").value()) {
    by_value.push_back(c.name);
  }
  EXPECT_THAT(names, ElementsAre("models/m/checkpoints/1", "models/m/checkpoints/2"));
  EXPECT_EQ(at_once, names);
  EXPECT_EQ(by_value, names);
}

// In C++20 a loop over a reference into a temporary reads freed memory.
template <typename List>
constexpr bool kSafeToLoopOver =
    !std::is_reference_v<decltype(*std::declval<List>())> &&
    !std::is_reference_v<decltype(std::declval<List>().value())>;
static_assert(kSafeToLoopOver<decltype(std::declval<Client&>().ListModels())>);
static_assert(kSafeToLoopOver<decltype(std::declval<Client&>().ListCheckpoints(""))>);
static_assert(kSafeToLoopOver<decltype(std::declval<Client&>().ListTensors(""))>);
static_assert(kSafeToLoopOver<decltype(ListAliases(std::declval<Client&>(), ""))>);
static_assert(kSafeToLoopOver<decltype(ListAliasMoves(std::declval<Client&>(), ""))>);
static_assert(kSafeToLoopOver<decltype(History(std::declval<Client&>(), ""))>);

}  // namespace
}  // namespace modelstore
