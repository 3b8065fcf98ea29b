// Aliases, leases, pins, copies and watchers through the client library.
#include "modelstore/lifecycle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "modelstore/retention.h"
#include "tests/client/hooked_connection.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using Kind = ModelEvent::Kind;

constexpr char kProduction[] = "models/iris/aliases/production";

class LifecycleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t seed = 1; seed <= 3; ++seed) Save(seed);
  }
  void Save(uint64_t seed) {
    auto info = support::Save(client_, "models/iris", Content(seed));
    ASSERT_TRUE(info.ok()) << info.status();
  }
  static TensorSet Content(uint64_t seed) {
    return TensorSet({.seed = seed, .tensors = 3, .bytes = 3'000});
  }
  static std::string Version(int64_t version) {
    return absl::StrCat("models/iris/checkpoints/", version);
  }
  // Of the holder `w`.
  static std::string LeaseOf(int64_t version) { return Version(version) + "/leases/w"; }
  ModelWatcher Watch(const std::string& cursor = "") {
    auto watcher = ModelWatcher::Open(client_, "models/iris", {.cursor = cursor});
    EXPECT_TRUE(watcher.ok()) << watcher.status();
    return *std::move(watcher);
  }

  TestStore store_;
  Client client_ = store_.NewClient();
};

TEST_F(LifecycleTest, LeasesAreListedOfAModelAndOfAVersion) {
  ASSERT_TRUE(AcquireLease(client_, Version(2), "b", seconds(60)).ok());
  ASSERT_TRUE(AcquireLease(client_, Version(2), "a", seconds(60)).ok());
  ASSERT_TRUE(AcquireLease(client_, Version(3), "a", seconds(60)).ok());
  std::vector<std::string> found;
  for (const LeaseInfo& lease : *ListLeases(client_, "models/iris")) {
    found.push_back(lease.checkpoint + " " + lease.holder);
    EXPECT_GT(lease.expire_time, lease.create_time);
  }
  EXPECT_THAT(found,
              ElementsAre(Version(2) + " a", Version(2) + " b", Version(3) + " a"));
  EXPECT_EQ(ListLeases(client_, Version(3))->size(), 1u);
  EXPECT_TRUE(ListLeases(client_, Version(1))->empty());
  EXPECT_TRUE(absl::IsNotFound(ListLeases(client_, "models/none").status()));
}

TEST_F(LifecycleTest, AnExpiryIsSetAndTakenAwayAndAPruneGoesByIt) {
  const auto past = std::chrono::system_clock::now() - std::chrono::hours(1);
  const auto soon = std::chrono::system_clock::now() + std::chrono::hours(1);
  auto updated = client_.UpdateCheckpoint(Version(1), {.expire_time = past});
  ASSERT_TRUE(updated.ok()) << updated.status();
  ASSERT_TRUE(updated->expire_time.has_value());
  EXPECT_LT(*updated->expire_time - past, milliseconds(1));
  ASSERT_TRUE(client_.UpdateCheckpoint(Version(2), {.expire_time = past}).ok());
  ASSERT_TRUE(client_.UpdateCheckpoint(Version(3), {.expire_time = soon}).ok());
  updated = client_.UpdateCheckpoint(Version(2), {.expire_time = kNeverExpires});
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_FALSE(updated->expire_time.has_value());
  // An update of something else leaves it alone.
  updated = client_.UpdateCheckpoint(Version(3), {.pinned = false});
  ASSERT_TRUE(updated.ok()) << updated.status();
  EXPECT_TRUE(updated->expire_time.has_value());
  const auto pruned = PruneCheckpoints(client_, "models/iris");
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_THAT(pruned->pruned_versions, ElementsAre(1));
}

TEST_F(LifecycleTest, AnAliasIsLoadedLikeAVersionAndFollowsItsMoves) {
  auto alias = SetAlias(client_, kProduction, 1, {.create_only = true, .note = "first"});
  ASSERT_TRUE(alias.ok()) << alias.status();
  EXPECT_EQ(alias->name, kProduction);
  EXPECT_EQ(alias->version, 1);
  const std::string name = "models/iris/checkpoints/production";
  EXPECT_EQ(support::Verify(client_, name, Content(1)), absl::OkStatus());
  ASSERT_TRUE(SetAlias(client_, kProduction, 3, {.expected_version = 1}).ok());
  EXPECT_EQ(support::Verify(client_, name, Content(3)), absl::OkStatus());
  auto plan = client_.PlanLoad(name);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->checkpoint().name, Version(3));
  EXPECT_THAT(plan->checkpoint().aliases, ElementsAre("production"));
  EXPECT_EQ(client_.GetModel("models/iris")->aliases.at("production"), 3);
  EXPECT_EQ(client_.ListTensors(name)->size(), plan->tensors().size());
  EXPECT_TRUE(
      absl::IsNotFound(client_.PlanLoad("models/iris/checkpoints/absent").status()));
}

TEST_F(LifecycleTest, OfTwoThreadsThatMakeTheSameStepsOneMakesEach) {
  ASSERT_TRUE(SetAlias(client_, kProduction, 1).ok());
  std::atomic<int> made = 0, lost = 0;
  constexpr int kSteps = 200;
  std::vector<std::thread> movers;
  for (int t = 0; t < 2; ++t) {
    movers.emplace_back([&] {
      Client client = store_.NewClient();
      for (int64_t step = 0; step < kSteps;) {
        const int64_t from = 1 + step % 3, to = 1 + (step + 1) % 3;
        const absl::Status moved =
            SetAlias(client, kProduction, to, {.expected_version = from}).status();
        if (moved.ok()) ++made;
        if (absl::IsAborted(moved)) ++lost;
        step = static_cast<int64_t>(
            ListAliasMoves(client, "models/iris", {.alias = "production"})->size() - 1);
      }
    });
  }
  for (std::thread& mover : movers) mover.join();
  const auto moves = ListAliasMoves(client_, "models/iris", {.alias = "production"});
  ASSERT_TRUE(moves.ok()) << moves.status();
  // Each OK is one move in the history.
  EXPECT_EQ(made, static_cast<int>(moves->size()) - 1);
  EXPECT_GE(made, kSteps);
}

TEST_F(LifecycleTest, WhatWasDoneIsReportedAsDoneAlsoWhereItsAnswerWasLost) {
  // The first call asks for the model's uid.
  store_.connection().SetFaults({.lose_answer_at = 2});
  ASSERT_TRUE(SetAlias(client_, kProduction, 1, {.create_only = true}).ok());
  store_.connection().SetFaults({.lose_answer_at = 2});
  ASSERT_EQ(DeleteAlias(client_, kProduction), absl::OkStatus());
  ASSERT_TRUE(AcquireLease(client_, Version(2), "w", seconds(60)).ok());
  store_.connection().SetFaults({.lose_answer_at = 2});
  ASSERT_EQ(ReleaseLease(client_, LeaseOf(2)), absl::OkStatus());
  EXPECT_EQ(ListAliasMoves(client_, "models/iris", {.alias = "production"})->size(), 2u);
  store_.connection().SetFaults({.lose_answer_at = 2});
  EXPECT_EQ(client_.DeleteCheckpoint(Version(1)), absl::OkStatus());
  store_.connection().SetFaults({.lose_answer_at = 2});
  EXPECT_EQ(client_.DeleteModel("models/iris", {.force = true}), absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(client_.DeleteModel("models/iris", {.force = true})));
}

// The first attempt's answer is lost, and before the next one the model is deleted and
// made anew, with the same versions, alias and lease.
TEST_F(LifecycleTest, ARepeatedCallTouchesNoModelThatWasRecreated) {
  const auto prepare = [this] {
    ASSERT_TRUE(SetAlias(client_, kProduction, 1).ok());
    ASSERT_TRUE(AcquireLease(client_, Version(2), "w", seconds(60)).ok());
  };
  const auto expect = [&](const std::string& method, absl::StatusCode code,
                          const std::function<absl::Status(Client&)>& call) {
    const auto calls = std::make_shared<std::atomic<int>>(0);
    Client client(std::make_shared<support::HookedConnection>(
        store_.connection(),
        [&, calls](std::string_view called,
                   const std::string&) -> std::optional<absl::StatusOr<std::string>> {
          if (called != method || ++*calls > 1) return std::nullopt;
          (void)DeleteAlias(client_, kProduction);
          (void)ReleaseLease(client_, LeaseOf(2));
          EXPECT_EQ(client_.DeleteModel("models/iris", {.force = true}),
                    absl::OkStatus());
          for (uint64_t seed = 1; seed <= 3; ++seed) Save(seed);
          prepare();
          return absl::UnavailableError("the answer was lost");
        }));
    const absl::Status s = call(client);
    EXPECT_EQ(s.code(), code) << method << ": " << s;
    EXPECT_EQ(*calls, 2) << method;
    auto model = client_.GetModel("models/iris");
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->description, "") << method;
    EXPECT_EQ(model->aliases["production"], 1) << method;
    EXPECT_FALSE(client_.GetCheckpoint(Version(3))->pinned) << method;
    EXPECT_EQ(GetRetentionPolicy(client_, "models/iris")->keep_latest, 0) << method;
    EXPECT_EQ(ReleaseLease(client_, LeaseOf(2)), absl::OkStatus()) << method;
    EXPECT_TRUE(absl::IsNotFound(ReleaseLease(client_, LeaseOf(3)))) << method;
    ASSERT_TRUE(AcquireLease(client_, Version(2), "w", seconds(60)).ok());
  };
  prepare();
  using Code = absl::StatusCode;
  expect("SetAlias", Code::kNotFound,
         [](Client& c) { return SetAlias(c, kProduction, 2).status(); });
  expect("DeleteAlias", Code::kOk, [](Client& c) { return DeleteAlias(c, kProduction); });
  expect("AcquireLease", Code::kNotFound, [](Client& c) {
    return AcquireLease(c, Version(3), "w", seconds(60)).status();
  });
  expect("ReleaseLease", Code::kOk,
         [](Client& c) { return ReleaseLease(c, LeaseOf(2)); });
  expect("UpdateCheckpoint", Code::kNotFound, [](Client& c) {
    return c.UpdateCheckpoint(Version(3), {.pinned = true}).status();
  });
  expect("UpdateModel", Code::kNotFound, [](Client& c) {
    return c.UpdateModel("models/iris", {.description = "old"}).status();
  });
  expect("UpdateModel", Code::kNotFound, [](Client& c) {
    return SetRetentionPolicy(c, "models/iris", {.keep_latest = 1});
  });
}

TEST_F(LifecycleTest, ARepeatedChangeOfTheLatestChangesTheVersionThatWasTheLatest) {
  int calls = 0;
  Client client(std::make_shared<support::HookedConnection>(
      store_.connection(),
      [&](std::string_view called,
          const std::string&) -> std::optional<absl::StatusOr<std::string>> {
        if (called != "UpdateCheckpoint" || ++calls > 1) return std::nullopt;
        Save(4);
        return absl::UnavailableError("the answer was lost");
      }));
  auto pinned =
      client.UpdateCheckpoint("models/iris/checkpoints/latest", {.pinned = true});
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(pinned->name, Version(3));
  EXPECT_FALSE(client_.GetCheckpoint(Version(4))->pinned);
}

TEST_F(LifecycleTest, AliasesHaveAListAndAHistory) {
  ASSERT_TRUE(SetAlias(client_, kProduction, 1).ok());
  ASSERT_TRUE(SetAlias(client_, kProduction, 2, {.note = "better"}).ok());
  ASSERT_TRUE(SetAlias(client_, "models/iris/aliases/best", 3).ok());
  EXPECT_TRUE(absl::IsAborted(
      SetAlias(client_, kProduction, 3, {.expected_version = 1}).status()));
  EXPECT_TRUE(
      absl::IsAborted(SetAlias(client_, kProduction, 3, {.create_only = true}).status()));
  auto aliases = ListAliases(client_, "models/iris");
  ASSERT_TRUE(aliases.ok()) << aliases.status();
  ASSERT_EQ(aliases->size(), 2u);
  EXPECT_EQ((*aliases)[0].name, "models/iris/aliases/best");
  EXPECT_EQ((*aliases)[1].note, "better");
  EXPECT_TRUE(
      absl::IsAborted(DeleteAlias(client_, kProduction, {.expected_version = 1})));
  ASSERT_TRUE(DeleteAlias(client_, kProduction, {.note = "retired"}).ok());
  EXPECT_TRUE(absl::IsNotFound(DeleteAlias(client_, kProduction)));
  auto moves = ListAliasMoves(client_, "models/iris", {.alias = "production"});
  ASSERT_TRUE(moves.ok()) << moves.status();
  ASSERT_EQ(moves->size(), 3u);
  EXPECT_EQ((*moves)[0].to_version, std::nullopt);
  EXPECT_EQ((*moves)[0].note, "retired");
  EXPECT_EQ((*moves)[1].from_version, 1);
  EXPECT_EQ((*moves)[1].to_version, 2);
  EXPECT_EQ((*moves)[2].from_version, std::nullopt);
  EXPECT_GT((*moves)[1].move_time, std::chrono::system_clock::now() - seconds(600));
  EXPECT_EQ(ListAliasMoves(client_, "models/iris", {.limit = 2})->size(), 2u);
}

TEST_F(LifecycleTest, WhatHoldsAVersionIsNamedByItsDeletion) {
  auto lease = AcquireLease(client_, "models/iris/checkpoints/latest", "serving-7",
                            milliseconds(90'500));
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_EQ(lease->name, Version(3) + "/leases/serving-7");
  EXPECT_EQ(lease->checkpoint, Version(3));
  const auto left = lease->expire_time - std::chrono::system_clock::now();
  EXPECT_GT(left, seconds(60));
  EXPECT_LE(left, milliseconds(90'500));
  auto pinned = client_.UpdateCheckpoint(Version(2), {.pinned = true});
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_TRUE(pinned->pinned);
  EXPECT_THAT(std::string(client_.DeleteCheckpoint(Version(3)).message()),
              HasSubstr("lease of serving-7"));
  EXPECT_THAT(std::string(client_.DeleteCheckpoint(Version(2)).message()),
              HasSubstr("pin"));
  EXPECT_TRUE(ReleaseLease(client_, lease->name).ok());
  EXPECT_TRUE(absl::IsNotFound(ReleaseLease(client_, lease->name)));
  EXPECT_TRUE(client_.UpdateCheckpoint(Version(2), {.pinned = false}).ok());
  EXPECT_TRUE(client_.DeleteCheckpoint(Version(3)).ok());
  EXPECT_TRUE(client_.DeleteCheckpoint(Version(2)).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(
      AcquireLease(client_, Version(1), "w", milliseconds(1)).status()));
  // Refused as what it is, and not as the little that it would overflow to.
  for (const Timeout time : {Timeout(std::chrono::hours::max()), Timeout(seconds::max()),
                             Timeout(milliseconds::min())}) {
    EXPECT_TRUE(
        absl::IsInvalidArgument(AcquireLease(client_, Version(1), "w", time).status()));
  }
}

TEST_F(LifecycleTest, UpdatesChangeWhatTheyNameAndNothingElse) {
  auto changed = client_.UpdateCheckpoint(
      Version(1), {.description = "good", .labels = {{{"data", "clean"}}}});
  ASSERT_TRUE(changed.ok()) << changed.status();
  changed = client_.UpdateCheckpoint(Version(1), {.description = "better"});
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->description, "better");
  EXPECT_THAT(changed->labels, ElementsAre(Pair("data", "clean")));
  auto model = client_.UpdateModel("models/iris", {.description = "flowers"});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(client_.GetModel("models/iris")->description, "flowers");
  model = client_.UpdateModel("models/iris", {.labels = {{{"team", "garden"}}}});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->description, "flowers");
  EXPECT_TRUE(absl::IsInvalidArgument(client_.UpdateModel("models/iris", {}).status()));
}

TEST_F(LifecycleTest, ACopyOutlivesItsSourceAndALostAnswerMakesNoSecondOne) {
  store_.connection().SetFaults({.lose_answer_at = 1});
  auto copy = CopyCheckpoint(
      client_, Version(2), "models/released",
      {.metadata = {.epoch = 0, .labels = {{"stage", "release"}}, .description = "v1"}});
  ASSERT_TRUE(copy.ok()) << copy.status();
  store_.connection().SetFaults({});
  EXPECT_EQ(copy->name, "models/released/checkpoints/1");
  EXPECT_EQ(copy->base_checkpoint, Version(2));
  EXPECT_EQ(copy->description, "v1");
  EXPECT_EQ(copy->labels.at("stage"), "release");
  EXPECT_EQ(copy->epoch, 0);
  EXPECT_EQ(client_.ListCheckpoints("models/released")->size(), 1u);
  ASSERT_TRUE(client_.DeleteModel("models/iris", {.force = true}).ok());
  ASSERT_TRUE(store_.store().maintenance().CollectGarbage(false, nullptr).ok());
  EXPECT_EQ(support::Verify(client_, copy->name, Content(2)), absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(
      CopyCheckpoint(client_, copy->name, "models/absent", {.create_model = false})
          .status()));
}

TEST_F(LifecycleTest, AWatcherIsReportedTheStateAndThenEachChange) {
  ModelWatcher watcher = Watch();
  auto event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kState);
  EXPECT_EQ(event->model.latest_version, 3);
  EXPECT_TRUE(absl::IsDeadlineExceeded(watcher.Next(After(milliseconds(50))).status()));

  std::thread worker([this] {
    std::this_thread::sleep_for(milliseconds(100));
    Save(4);
    EXPECT_TRUE(SetAlias(client_, kProduction, 4).ok());
    EXPECT_TRUE(client_.UpdateCheckpoint(Version(4), {.pinned = true}).ok());
    EXPECT_TRUE(client_.DeleteCheckpoint(Version(1)).ok());
    EXPECT_TRUE(client_.UpdateModel("models/iris", {.description = "d"}).ok());
  });
  event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kCommitted);
  EXPECT_EQ(event->checkpoint.name, Version(4));
  event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kAliasMoved);
  EXPECT_EQ(event->alias_move.alias, "production");
  EXPECT_EQ(event->version, 4);
  event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kUpdated);
  event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kDeleted);
  EXPECT_EQ(event->version, 1);
  event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kModelUpdated);
  EXPECT_EQ(event->model.description, "d");
  worker.join();
}

TEST_F(LifecycleTest, AWatcherWhoseStreamIsCutMissesNothingAndSeesNothingTwice) {
  ModelWatcher watcher = Watch();
  ASSERT_TRUE(watcher.Next(TestDeadline()).ok());
  constexpr int kMoves = 60;
  for (int i = 0; i < kMoves; ++i) {
    ASSERT_TRUE(SetAlias(client_, kProduction, 1 + i % 3).ok());
  }
  store_.connection().SetFaults({.cut_at = 3, .cut_every = 5});
  for (int i = 0; i < kMoves; ++i) {
    auto event = watcher.Next(TestDeadline());
    ASSERT_TRUE(event.ok()) << event.status();
    ASSERT_EQ(event->kind, Kind::kAliasMoved);
    EXPECT_EQ(event->version, 1 + i % 3) << i;
  }
}

TEST_F(LifecycleTest, AWatcherComesBackAfterARestartAlsoInAnotherProcess) {
  ModelWatcher watcher = Watch();
  ASSERT_TRUE(watcher.Next(TestDeadline()).ok());
  const std::string cursor = watcher.cursor();
  store_.Stop();
  EXPECT_TRUE(absl::IsDeadlineExceeded(watcher.Next(After(milliseconds(200))).status()));
  store_.Start();
  Save(4);
  auto event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kCommitted);
  ModelWatcher another = Watch(cursor);
  event = another.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->checkpoint.name, Version(4));
  EXPECT_EQ(another.cursor(), watcher.cursor());
  EXPECT_TRUE(absl::IsInvalidArgument(Watch("elsewhere").Next(TestDeadline()).status()));
}

TEST_F(LifecycleTest, TheDeletionOfTheModelIsTheLastThingThatIsReported) {
  ModelWatcher watcher = Watch();
  ASSERT_TRUE(watcher.Next(TestDeadline()).ok());
  ASSERT_TRUE(client_.DeleteModel("models/iris", {.force = true}).ok());
  auto event = watcher.Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, Kind::kModelDeleted);
  EXPECT_TRUE(absl::IsOutOfRange(watcher.Next(TestDeadline()).status()));
  EXPECT_TRUE(absl::IsNotFound(Watch().Next(TestDeadline()).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ModelWatcher::Open(client_, "iris").status()));
}

TEST(ModelWatcherTest, TimeBetweenCallsDoesNotCountAsRetryTime) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = milliseconds(500);
  TestStore store(options);
  Client client = store.NewClient();
  ASSERT_TRUE(client.CreateModel("m").ok());
  auto watcher = ModelWatcher::Open(client, "models/m");
  ASSERT_TRUE(watcher.ok());
  store.Stop();
  EXPECT_TRUE(absl::IsDeadlineExceeded(watcher->Next(After(milliseconds(20))).status()));
  std::this_thread::sleep_for(milliseconds(700));
  const absl::Status s = watcher->Next(After(milliseconds(20))).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(s)) << s;
  EXPECT_TRUE(absl::IsUnavailable(watcher->Next(After(seconds(10))).status()));
}

TEST_F(LifecycleTest, AServerThatStaysAwayIsReportedInTime) {
  ModelWatcher watcher = Watch();
  store_.Stop();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(watcher.Next(After(milliseconds(300))).ok());
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(5));
}

}  // namespace
}  // namespace modelstore
