// What changes around a version that never changes: aliases and their history,
// pins, leases, labels, and what a watcher is told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

using ::testing::HasSubstr;

class LifeTest : public ::testing::Test {
 protected:
  void SetUp() override { Save(3); }

  void Save(int versions) {
    for (int i = 0; i < versions; ++i) {
      ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(i, 1, 100)).status());
    }
  }
  absl::StatusOr<Aliases::Alias> Set(const std::string& alias, int64_t version,
                                     std::optional<int64_t> expected = {},
                                     const std::string& note = "") {
    Aliases::Move move;
    move.alias = alias;
    move.version = version;
    move.expected_version = expected;
    move.note = note;
    return fixture_.store().aliases().Set("m", move);
  }
  absl::Status Delete(int64_t version) {
    return fixture_.store().checkpoints().Delete("m", version, {}).status();
  }
  std::vector<records::AliasMoveRecord> Moves(const std::string& alias = "") {
    auto moves = fixture_.store().aliases().ListMoves("m", alias, "", 100);
    EXPECT_OK(moves.status());
    return moves.ok() ? moves->items : std::vector<records::AliasMoveRecord>();
  }
  int64_t Resolve(const std::string& alias) {
    auto record = fixture_.store().checkpoints().Get("m", VersionName::Alias(alias));
    return record.ok() ? record->version() : 0;
  }
  std::vector<Models::Event> EventsAfter(uint64_t generation) {
    auto model = fixture_.store().models().Get("m");
    EXPECT_OK(model.status());
    auto events = fixture_.store().models().Events(*model, generation, 10'000);
    EXPECT_OK(events.status());
    return events.ok() ? *events : std::vector<Models::Event>();
  }
  uint64_t Generation() { return fixture_.store().models().Get("m")->generation(); }

  StoreFixture fixture_;
};

TEST_F(LifeTest, AnAliasNamesItsVersionWhereverAVersionIsNamed) {
  EXPECT_TRUE(absl::IsNotFound(fixture_.store()
                                   .checkpoints()
                                   .Get("m", VersionName::Alias("production"))
                                   .status()));
  ASSERT_OK(Set("production", 2).status());
  EXPECT_EQ(Resolve("production"), 2);
  auto read = fixture_.store().reads().Open("m", VersionName::Alias("production"));
  ASSERT_OK(read.status());
  EXPECT_EQ((*read)->checkpoint().version(), 2);
  SaveRequest request = RequestOf({});
  request.base_version = VersionName::Alias("production");
  auto save = fixture_.store().saves().StartOneShot(request);
  ASSERT_OK(save.status());
  ASSERT_OK((*save)->AddManifest(PartOf({Vector("w", "bytes")}, false)));
  ASSERT_OK((*save)->Put(std::nullopt, {absl::string_view("bytes")}));
  auto saved = (*save)->Commit({});
  ASSERT_OK(saved.status());
  EXPECT_EQ(saved->base_version(), 2);
  ASSERT_OK(Set("production", 3).status());
  EXPECT_EQ(Resolve("production"), 3);
  // Neither may outlive its store.
  save->reset();
  read->reset();
  ASSERT_OK(fixture_.Reopen());
  EXPECT_EQ(Resolve("production"), 3);
}

TEST_F(LifeTest, AnAliasMovesOnlyFromWhereItsMoverBelievesItToBe) {
  EXPECT_TRUE(absl::IsAborted(Set("production", 1, 2).status()));
  ASSERT_OK(Set("production", 1, 0).status());
  EXPECT_TRUE(absl::IsAborted(Set("production", 2, 0).status()));
  EXPECT_TRUE(absl::IsAborted(Set("production", 2, 3).status()));
  ASSERT_OK(Set("production", 2, 1).status());
  // Another caller with the same step did not make it. Who expects nothing, or what
  // is so, changes nothing.
  EXPECT_TRUE(absl::IsAborted(Set("production", 2, 1).status()));
  ASSERT_OK(Set("production", 2, 2).status());
  ASSERT_OK(Set("production", 2).status());
  EXPECT_EQ(Moves().size(), 2u);
  EXPECT_TRUE(absl::IsNotFound(Set("production", 9).status()));
  EXPECT_TRUE(absl::IsAborted(Set("production", 0, 1).status()));
  ASSERT_OK(Set("production", 0, 2).status());
  EXPECT_TRUE(absl::IsNotFound(Set("production", 0).status()));
}

TEST_F(LifeTest, ARepeatedMoveIsMadeOnceWhateverBecameOfTheAliasSince) {
  Aliases& aliases = fixture_.store().aliases();
  const Aliases::Move move{
      .alias = "production", .version = 2, .expected_version = 0, .request_id = "first"};
  ASSERT_OK(aliases.Set("m", move).status());
  ASSERT_OK(Set("production", 3).status());
  ASSERT_OK(fixture_.Reopen());
  const auto again = fixture_.store().aliases().Set("m", move);
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version, 3);
  Aliases::Move other = move;
  other.version = 1;
  EXPECT_TRUE(
      absl::IsInvalidArgument(fixture_.store().aliases().Set("m", other).status()));
  const Aliases::Move gone{.alias = "production", .version = 0, .request_id = "second"};
  ASSERT_OK(fixture_.store().aliases().Set("m", gone).status());
  ASSERT_OK(Set("production", 1).status());
  ASSERT_OK(fixture_.store().aliases().Set("m", gone).status());
  EXPECT_EQ(Resolve("production"), 1);
}

TEST_F(LifeTest, AMoveThatFoundTheAliasInPlaceIsNotMadeLaterEither) {
  Aliases& aliases = fixture_.store().aliases();
  ASSERT_OK(Set("production", 2).status());
  const Aliases::Move move{.alias = "production", .version = 2, .request_id = "id"};
  ASSERT_OK(aliases.Set("m", move).status());
  ASSERT_EQ(Moves().size(), 2u);
  EXPECT_EQ(Moves()[0].from_version(), 2);
  EXPECT_EQ(Moves()[0].to_version(), 2);
  ASSERT_OK(Set("production", 3).status());
  const auto again = aliases.Set("m", move);
  ASSERT_OK(again.status());
  EXPECT_EQ(again->version, 3);
  EXPECT_EQ(Resolve("production"), 3);
}

TEST_F(LifeTest, ARefusalNamesAllHoldersAtOnce) {
  ASSERT_OK(Set("production", 2).status());
  ASSERT_OK(Set("best", 2).status());
  ASSERT_OK(fixture_.store().checkpoints().Change("m", 2, {.pinned = true}, {}).status());
  for (int i = 0; i < 30; ++i) {
    ASSERT_OK(fixture_.store()
                  .leases()
                  .Acquire("m", 2, absl::StrCat("w", i), absl::Hours(1))
                  .status());
  }
  const std::string one(Delete(2).message());
  for (const char* holder : {"the alias best", "the alias production", "its pin",
                             "the lease of w0", "and 13 more"}) {
    EXPECT_NE(one.find(holder), std::string::npos) << one;
  }
  const std::string all(
      fixture_.store().models().Delete("m", true, {}).status().message());
  EXPECT_NE(all.find("the alias best (version 2)"), std::string::npos) << all;
}

TEST_F(LifeTest, AChangeMeantForAModelThatWasRecreatedChangesNothing) {
  const std::string old = fixture_.store().models().Get("m")->uid();
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  ASSERT_OK(SaveOneShot(fixture_.store(), {Vector("w", "anew")}).status());
  Checkpoints& checkpoints = fixture_.store().checkpoints();
  const ChangeOptions options{.model_uid = old};
  EXPECT_TRUE(
      absl::IsNotFound(fixture_.store().models().Delete("m", true, options).status()));
  EXPECT_TRUE(
      absl::IsNotFound(fixture_.store().models().Change("m", {}, options).status()));
  EXPECT_TRUE(absl::IsNotFound(checkpoints.Delete("m", 1, options).status()));
  EXPECT_TRUE(
      absl::IsNotFound(checkpoints.Change("m", 1, {.pinned = true}, options).status()));
  EXPECT_TRUE(
      absl::IsNotFound(fixture_.store()
                           .aliases()
                           .Set("m", {.alias = "a", .version = 1, .model_uid = old})
                           .status()));
  EXPECT_TRUE(absl::IsNotFound(
      fixture_.store().leases().Acquire("m", 1, "w", absl::Hours(1), old).status()));
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().leases().Release("m", 1, "w", old)));
  EXPECT_OK(checkpoints.Get("m", 1).status());
}

TEST_F(LifeTest,
       TheHistoryReportsEveryMoveNewestFirstAlsoOfAliasesAndVersionsThatAreMissing) {
  ASSERT_OK(Set("production", 1, {}, "first").status());
  fixture_.Advance(absl::Seconds(5));
  ASSERT_OK(Set("staging", 3).status());
  ASSERT_OK(Set("production", 2, {}, "accuracy 0.97").status());
  ASSERT_OK(Set("production", 0, {}, "retired").status());
  ASSERT_OK(Delete(1));
  ASSERT_OK(Delete(2));
  ASSERT_OK(fixture_.Reopen());
  const auto moves = Moves("production");
  ASSERT_EQ(moves.size(), 3u);
  EXPECT_EQ(moves[0].from_version(), 2);
  EXPECT_EQ(moves[0].to_version(), 0);
  EXPECT_EQ(moves[0].note(), "retired");
  EXPECT_EQ(moves[1].from_version(), 1);
  EXPECT_EQ(moves[1].to_version(), 2);
  EXPECT_EQ(moves[1].note(), "accuracy 0.97");
  EXPECT_EQ(moves[2].from_version(), 0);
  EXPECT_EQ(moves[1].move_time_us() - moves[2].move_time_us(), 5'000'000);
  EXPECT_EQ(Moves().size(), 4u);

  // Page by page, the same.
  std::string after;
  std::vector<int64_t> to;
  do {
    auto page = fixture_.store().aliases().ListMoves("m", "production", after, 1);
    ASSERT_OK(page.status());
    for (const auto& move : page->items) to.push_back(move.to_version());
    after = page->next;
  } while (!after.empty());
  EXPECT_THAT(to, ::testing::ElementsAre(0, 2, 1));
}

TEST_F(LifeTest, AModelHasAThousandAliasesAndNoMore) {
  for (int i = 0; i < 1000; ++i) ASSERT_OK(Set(absl::StrCat("a", i), 1).status());
  EXPECT_TRUE(absl::IsResourceExhausted(Set("one-more", 1).status()));
  EXPECT_OK(Set("a7", 2).status());
  ASSERT_OK(Set("a8", 0).status());
  EXPECT_OK(Set("one-more", 1).status());
}

TEST_F(LifeTest, TheMovesOfARareAliasAreFoundPageByPageInAnyHistory) {
  ASSERT_OK(Set("rare", 1).status());
  for (int i = 0; i < 10'100; ++i) ASSERT_OK(Set("busy", 1 + i % 2).status());
  auto page = fixture_.store().aliases().ListMoves("m", "rare", "", 10);
  ASSERT_OK(page.status());
  EXPECT_TRUE(page->items.empty());
  ASSERT_NE(page->next, "");
  page = fixture_.store().aliases().ListMoves("m", "rare", page->next, 10);
  ASSERT_OK(page.status());
  EXPECT_EQ(page->items.size(), 1u);
  EXPECT_EQ(page->next, "");
}

TEST_F(LifeTest, AliasesAreListedByNamePageByPage) {
  for (const char* alias : {"staging", "best", "production"}) {
    ASSERT_OK(Set(alias, 2, {}, alias).status());
  }
  auto page = fixture_.store().aliases().List("m", "", 2);
  ASSERT_OK(page.status());
  ASSERT_EQ(page->items.size(), 2u);
  EXPECT_EQ(page->items[0].alias, "best");
  EXPECT_EQ(page->items[1].alias, "production");
  EXPECT_EQ(page->items[1].record.note(), "production");
  page = fixture_.store().aliases().List("m", page->next, 2);
  ASSERT_OK(page.status());
  ASSERT_EQ(page->items.size(), 1u);
  EXPECT_EQ(page->items[0].alias, "staging");
  EXPECT_EQ(page->next, "");
}

TEST_F(LifeTest, WhatHoldsAVersionRefusesItsDeletionAndIsNamed) {
  auto& checkpoints = fixture_.store().checkpoints();
  ASSERT_OK(Set("production", 1).status());
  ASSERT_OK(checkpoints.Change("m", 2, {.pinned = true}, {}).status());
  ASSERT_OK(
      fixture_.store().leases().Acquire("m", 3, "serving-7", absl::Seconds(30)).status());
  const std::pair<int64_t, const char*> held[] = {
      {1, "alias production"}, {2, "pin"}, {3, "lease of serving-7"}};
  for (const auto& [version, holder] : held) {
    for (const bool validate_only : {true, false}) {
      const absl::Status status =
          checkpoints.Delete("m", version, {.validate_only = validate_only}).status();
      EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(holder));
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr(absl::StrCat("checkpoints/", version)));
    }
  }
  // The model goes only once nothing holds any of them.
  for (const auto& release : std::vector<std::function<absl::Status()>>{
           [&] { return Set("production", 0).status(); },
           [&] { return checkpoints.Change("m", 2, {.pinned = false}, {}).status(); },
           [&] { return fixture_.store().leases().Release("m", 3, "serving-7"); }}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(
        fixture_.store().models().Delete("m", true, {}).status()));
    ASSERT_OK(release());
  }
  for (const auto& [version, holder] : held) EXPECT_OK(Delete(version));
  EXPECT_OK(fixture_.store().models().Delete("m", true, {}).status());
  EXPECT_LT(fixture_.UsedAfterCollection(), 300);
}

TEST_F(LifeTest, ADeletedModelLeavesNothingOfItsLifeBehind) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_OK(Set("production", 1 + i % 3).status());
    ASSERT_OK(fixture_.store()
                  .leases()
                  .Acquire("m", 1, absl::StrCat("worker-", i), absl::Seconds(1))
                  .status());
  }
  ASSERT_OK(Set("production", 0).status());
  fixture_.Advance(absl::Seconds(2));
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  EXPECT_LT(fixture_.UsedAfterCollection(), 200);
}

TEST_F(LifeTest, ALeaseEndsByItselfAndIsRenewedByItsHolder) {
  auto& leases = fixture_.store().leases();
  auto first = leases.Acquire("m", {}, "serving-7", absl::Seconds(10));
  ASSERT_OK(first.status());
  EXPECT_EQ(first->version, 3);
  fixture_.Advance(absl::Seconds(8));
  auto renewed = leases.Acquire("m", 3, "serving-7", absl::Seconds(10));
  ASSERT_OK(renewed.status());
  EXPECT_EQ(renewed->record.create_time_us(), first->record.create_time_us());
  EXPECT_EQ(renewed->record.expire_time_us() - first->record.expire_time_us(), 8'000'000);
  fixture_.Advance(absl::Seconds(8));
  EXPECT_TRUE(absl::IsFailedPrecondition(Delete(3)));
  // Stored, so that a restart changes nothing.
  ASSERT_OK(fixture_.Reopen());
  EXPECT_TRUE(absl::IsFailedPrecondition(Delete(3)));
  fixture_.Advance(absl::Seconds(3));
  EXPECT_TRUE(fixture_.store().leases().List("m", {}, "", 10)->items.empty());
  EXPECT_TRUE(absl::IsNotFound(fixture_.store().leases().Release("m", 3, "serving-7")));
  EXPECT_OK(Delete(3));
}

TEST_F(LifeTest, NothingExpiresForAWhileAfterAStart) {
  ASSERT_OK(
      fixture_.store().leases().Acquire("m", 3, "serving-7", absl::Seconds(1)).status());
  fixture_.options().start_grace = absl::Minutes(10);
  ASSERT_OK(fixture_.Reopen());
  fixture_.Advance(absl::Minutes(9));
  EXPECT_TRUE(absl::IsFailedPrecondition(Delete(3)));
  fixture_.Advance(absl::Minutes(2));
  EXPECT_OK(Delete(3));
}

TEST_F(LifeTest, LeasesAreListedByVersionAndHolder) {
  auto& leases = fixture_.store().leases();
  for (const auto& [version, holder] :
       {std::pair<int64_t, const char*>{2, "b"}, {1, "z"}, {2, "a"}, {3, "c"}}) {
    ASSERT_OK(leases.Acquire("m", version, holder, absl::Seconds(10)).status());
  }
  std::vector<std::string> seen;
  std::string after;
  do {
    auto page = leases.List("m", {}, after, 1);
    ASSERT_OK(page.status());
    for (const auto& lease : page->items) {
      seen.push_back(absl::StrCat(lease.version, lease.holder));
    }
    after = page->next;
  } while (!after.empty());
  EXPECT_THAT(seen, ::testing::ElementsAre("1z", "2a", "2b", "3c"));
  auto of_two = leases.List("m", VersionName(2), "", 10);
  ASSERT_OK(of_two.status());
  EXPECT_EQ(of_two->items.size(), 2u);
  EXPECT_TRUE(absl::IsNotFound(leases.List("m", VersionName(9), "", 10).status()));
}

TEST_F(LifeTest, TooManyLeasesAreRefusedAndExpiredOnesMakeRoom) {
  auto& leases = fixture_.store().leases();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_OK(leases.Acquire("m", 1, absl::StrCat("w", i), absl::Seconds(10)).status());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(
      leases.Acquire("m", 1, "one more", absl::Seconds(10)).status()));
  EXPECT_OK(leases.Acquire("m", 1, "w7", absl::Seconds(10)).status());
  EXPECT_OK(leases.Acquire("m", 2, "one more", absl::Seconds(10)).status());
  fixture_.Advance(absl::Seconds(11));
  EXPECT_OK(leases.Acquire("m", 1, "one more", absl::Seconds(10)).status());
}

TEST_F(LifeTest, LabelsAndDescriptionChangeAndTheContentDoesNot) {
  auto& checkpoints = fixture_.store().checkpoints();
  const auto before = checkpoints.Get("m", 2);
  ASSERT_OK(before.status());
  Checkpoints::Update update;
  update.description = "the good one";
  update.labels.emplace()["data"] = "clean";
  update.expire_time_us = 77;
  const auto planned = checkpoints.Change("m", 2, update, {.validate_only = true});
  ASSERT_OK(planned.status());
  EXPECT_EQ(planned->metadata().description(), "the good one");
  EXPECT_EQ(checkpoints.Get("m", 2)->SerializeAsString(), before->SerializeAsString());
  EXPECT_TRUE(
      absl::IsAborted(checkpoints.Change("m", 2, update, {.generation = 9}).status()));
  ASSERT_OK(checkpoints.Change("m", 2, update, {.generation = 1}).status());
  const auto after = checkpoints.Get("m", 2);
  ASSERT_OK(after.status());
  EXPECT_EQ(after->metadata().labels().at("data"), "clean");
  EXPECT_EQ(after->expire_time_us(), 77);
  EXPECT_EQ(after->manifest_digest(), before->manifest_digest());
  EXPECT_EQ(after->generation(), 2u);
  // What is not named stays.
  ASSERT_OK(checkpoints.Change("m", 2, {.pinned = true}, {}).status());
  EXPECT_EQ(checkpoints.Get("m", 2)->metadata().description(), "the good one");
}

TEST_F(LifeTest, EveryChangeOfAModelIsOneGenerationAndReportedInOrder) {
  const uint64_t start = Generation();
  ASSERT_OK(Set("production", 2).status());
  Save(1);
  ASSERT_OK(fixture_.store().checkpoints().Change("m", 1, {.pinned = true}, {}).status());
  ASSERT_OK(Delete(3));
  Models::Update update;
  update.description = "flowers";
  ASSERT_OK(fixture_.store().models().Change("m", update, {}).status());
  // A lease is nobody else's business.
  ASSERT_OK(fixture_.store().leases().Acquire("m", 2, "w", absl::Seconds(1)).status());
  ASSERT_OK(fixture_.Reopen());
  const auto events = EventsAfter(start);
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0].record.alias_moved().to_version(), 2);
  EXPECT_EQ(events[1].record.committed_version(), 4);
  EXPECT_EQ(events[2].record.updated_version(), 1);
  EXPECT_EQ(events[3].record.deleted_version(), 3);
  EXPECT_TRUE(events[4].record.model_updated());
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].generation, start + 1 + i);
  }
  EXPECT_TRUE(EventsAfter(Generation()).empty());
}

TEST_F(LifeTest, OnlyTheNewestChangesAreKeptAndALateComerIsReported) {
  const uint64_t start = Generation();
  for (int i = 0; i < 1100; ++i) ASSERT_OK(Set("a", 1 + i % 2).status());
  auto model = fixture_.store().models().Get("m");
  ASSERT_OK(model.status());
  auto& models = fixture_.store().models();
  EXPECT_TRUE(absl::IsOutOfRange(models.Events(*model, start, 10).status()));
  EXPECT_EQ(EventsAfter(model->generation() - 1024).size(), 1024u);
  EXPECT_TRUE(
      absl::IsOutOfRange(models.Events(*model, model->generation() - 1025, 10).status()));
}

TEST_F(LifeTest, WhatHoldsAVersionIsGivenBackOnAFullDiskToo) {
  ASSERT_OK(Set("production", 1).status());
  ASSERT_OK(fixture_.store().checkpoints().Change("m", 2, {.pinned = true}, {}).status());
  ASSERT_OK(fixture_.store().leases().Acquire("m", 3, "w", absl::Hours(1)).status());
  fixture_.options().reserve_bytes = int64_t{1} << 40;
  fixture_.disk().SetCapacity(fixture_.disk().used_bytes() + 2000);
  ASSERT_OK(fixture_.Reopen());
  EXPECT_TRUE(absl::IsResourceExhausted(Set("best", 1).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(
      fixture_.store().leases().Acquire("m", 1, "w", absl::Hours(1)).status()));
  EXPECT_OK(Set("production", 0).status());
  EXPECT_OK(
      fixture_.store().checkpoints().Change("m", 2, {.pinned = false}, {}).status());
  EXPECT_OK(fixture_.store().leases().Release("m", 3, "w"));
  for (int64_t version : {1, 2, 3}) EXPECT_OK(Delete(version));
}

TEST_F(LifeTest, OnlyChangesWakeWatchers) {
  std::vector<std::string> woken;
  const std::string uid = fixture_.store().models().Get("m")->uid();
  fixture_.store().WatchModels(
      [&](absl::string_view changed) { woken.emplace_back(changed); });
  ASSERT_OK(Set("production", 2).status());
  Save(1);
  ASSERT_OK(fixture_.store().checkpoints().Change("m", 1, {.pinned = true}, {}).status());
  ASSERT_OK(Delete(3));
  EXPECT_THAT(woken, ::testing::ElementsAre(uid, uid, uid, uid));
  ASSERT_OK(Set("production", 2).status());
  EXPECT_FALSE(Set("production", 9).ok());
  EXPECT_FALSE(Delete(1).ok());
  ASSERT_OK(fixture_.store().leases().Acquire("m", 2, "w", absl::Seconds(1)).status());
  ASSERT_OK(fixture_.store().leases().Release("m", 2, "w"));
  EXPECT_EQ(woken.size(), 4u);
  ASSERT_OK(Set("production", 0).status());
  ASSERT_OK(
      fixture_.store().checkpoints().Change("m", 1, {.pinned = false}, {}).status());
  ASSERT_OK(fixture_.store().models().Delete("m", true, {}).status());
  EXPECT_EQ(woken.back(), uid);
  fixture_.store().WatchModels(nullptr);
  const size_t before = woken.size();
  Save(1);
  EXPECT_EQ(woken.size(), before);
}

TEST_F(LifeTest, NoAliasIsEverLeftOnAVersionThatIsDeleted) {
  for (int round = 0; round < 200; ++round) {
    ASSERT_OK(SaveOneShot(fixture_.store(), RandomContent(round, 1, 10)).status());
    const int64_t version = fixture_.store().models().Get("m")->latest_version();
    absl::Status set, leased, deleted;
    std::thread alias([&] { set = Set("best", version).status(); });
    std::thread lease([&] {
      leased = fixture_.store()
                   .leases()
                   .Acquire("m", version, "w", absl::Seconds(100))
                   .status();
    });
    std::thread remove([&] { deleted = Delete(version); });
    alias.join();
    lease.join();
    remove.join();
    if (deleted.ok()) {
      EXPECT_TRUE(absl::IsNotFound(set)) << set;
      EXPECT_TRUE(absl::IsNotFound(leased)) << leased;
      continue;
    }
    EXPECT_TRUE(absl::IsFailedPrecondition(deleted)) << deleted;
    EXPECT_TRUE(set.ok() || leased.ok());
    EXPECT_OK(fixture_.store().checkpoints().Get("m", version).status());
    Set("best", 0).IgnoreError();
    fixture_.store().leases().Release("m", version, "w").IgnoreError();
  }
}

}  // namespace
}  // namespace modelstore::storage
