// Every call that changes something fails: once, for good, or after its effect.
// Then what was told must be true, nothing half-made may be seen, the same request
// must go through once the fault is gone, and nothing may be left over.
#include <gtest/gtest.h>

#include <functional>

#include "storage/status_macros.h"
#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

constexpr int64_t kOld = 1, kDoomed = 2;

// Few chunks, so that there are not too many steps.
constexpr size_t kBytes = 3 * kTestChunk;
TestContent OldContent() { return RandomContent(1, 2, kBytes); }
TestContent DoomedContent() { return RandomContent(2, 2, kBytes); }
TestContent NewContent(bool large) {
  TestContent content = RandomContent(3, large ? 3 : 1, large ? kBytes * 3 : 1000);
  content.push_back(OldContent()[0]);  // shared with the base
  content.back().key = "shared";
  return content;
}

// Shares what the old version holds and puts the rest.
absl::Status Derive(CheckpointStore& store, const TestContent& content) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Read> old, store.reads().Open("m", kOld));
  ASSIGN_OR_RETURN(const std::unique_ptr<DerivedSave> save,
                   store.saves().StartDerived(RequestOf({.request_id = "new"}), {old}));
  for (const TestTensor& tensor : content) {
    if (tensor.key == "shared") continue;
    for (const std::string& chunk : ChunksOf({tensor})) {
      RETURN_IF_ERROR(save->Put(chunk).status());
    }
  }
  return save->Commit(PartOf(content), {}).status();
}

struct Operation {
  const char* name;
  std::function<absl::Status(CheckpointStore&)> run;
  std::optional<TestContent> adds;
  bool deletes = false;
  // Moves the alias `production` to kOld.
  bool names = false;
  // Takes a lease of `worker` on kOld, and pins it.
  bool leases = false, pins = false;
};

std::vector<Operation> Operations() {
  auto save = [](bool large, auto how) {
    return [large, how](CheckpointStore& store) {
      return how(store, NewContent(large), SaveOptions{.request_id = "new"}).status();
    };
  };
  return {
      {"SmallSave", save(false, SaveOneShot), NewContent(false)},
      {"LargeSave", save(true, SaveOneShot), NewContent(true)},
      {"SmallUpload", save(false, SaveByUpload), NewContent(false)},
      {"LargeUpload", save(true, SaveByUpload), NewContent(true)},
      {"SmallDerive",
       [](CheckpointStore& store) { return Derive(store, NewContent(false)); },
       NewContent(false)},
      {"LargeDerive",
       [](CheckpointStore& store) { return Derive(store, NewContent(true)); },
       NewContent(true)},
      {"Delete",
       [](CheckpointStore& store) {
         return store.checkpoints().Delete("m", kDoomed, {}).status();
       },
       std::nullopt, true},
      {"Sweep",
       [](CheckpointStore& store) {
         absl::Status status = store.checkpoints().Delete("m", kDoomed, {}).status();
         if (!status.ok() && !absl::IsNotFound(status)) return status;
         return store.maintenance().CollectGarbage(false, nullptr).status();
       },
       std::nullopt, true},
      {"SetAlias",
       [](CheckpointStore& store) {
         Aliases::Move move;
         move.alias = "production";
         move.version = kOld;
         return store.aliases().Set("m", move).status();
       },
       std::nullopt, false, true},
      {"AcquireLease",
       [](CheckpointStore& store) {
         return store.leases().Acquire("m", kOld, "worker", absl::Hours(1)).status();
       },
       std::nullopt, false, false, true},
      {"Pin",
       [](CheckpointStore& store) {
         return store.checkpoints().Change("m", kOld, {.pinned = true}, {}).status();
       },
       std::nullopt, false, false, false, true},
      {"Copy", [](CheckpointStore& store) { return Copy(store, kOld, "copy").status(); },
       OldContent()},
  };
}

struct FaultKind {
  const char* name;
  bool for_good;
  bool after_effect;
  absl::StatusCode code;
};
constexpr FaultKind kFaults[] = {
    {"once", false, false, absl::StatusCode::kUnavailable},
    {"for good", true, false, absl::StatusCode::kUnavailable},
    {"once after its effect", false, true, absl::StatusCode::kUnavailable},
    {"for good after its effect", true, true, absl::StatusCode::kUnavailable},
    {"once for want of space", false, false, absl::StatusCode::kResourceExhausted},
    {"for good for want of space", true, false, absl::StatusCode::kResourceExhausted},
};

class FailingCallTest : public ::testing::TestWithParam<Operation> {
 protected:
  static void Prepare(StoreFixture& fixture) {
    fixture.options().pack_bytes = 1 << 20;
    ASSERT_OK(fixture.Reopen());
    ASSERT_OK(SaveByUpload(fixture.store(), OldContent()).status());
    ASSERT_OK(SaveByUpload(fixture.store(), DoomedContent(), {.no_base = true}).status());
  }

  // What is there is whole; what was acknowledged is there.
  static void Check(StoreFixture& fixture, const Operation& operation,
                    bool acknowledged) {
    CheckpointStore& store = fixture.store();
    const auto old = LoadAll(store, kOld);
    ASSERT_OK(old.status());
    EXPECT_EQ(*old, Expected(OldContent()));
    const auto doomed = LoadAll(store, kDoomed);
    if (operation.deletes && acknowledged) {
      EXPECT_TRUE(absl::IsNotFound(doomed.status())) << doomed.status();
    } else if (!operation.deletes || doomed.ok()) {
      ASSERT_OK(doomed.status());
      EXPECT_EQ(*doomed, Expected(DoomedContent()));
    } else {
      EXPECT_TRUE(absl::IsNotFound(doomed.status())) << doomed.status();
    }
    const auto moves = store.aliases().ListMoves("m", "production", "", 100);
    ASSERT_OK(moves.status());
    const auto named = store.checkpoints().Get("m", VersionName::Alias("production"));
    if (operation.names && acknowledged) {
      ASSERT_OK(named.status());
    }
    EXPECT_EQ(moves->items.size(), named.ok() ? 1u : 0u);
    CheckHolds(store, operation, acknowledged);
    const auto page = store.checkpoints().List("m", false, "", 100);
    ASSERT_OK(page.status());
    int added = 0;
    for (const auto& record : page->items) {
      if (record.version() <= kDoomed) continue;
      ++added;
      ASSERT_TRUE(operation.adds.has_value());
      const auto loaded = LoadAll(store, record.version());
      ASSERT_OK(loaded.status());
      EXPECT_EQ(*loaded, Expected(*operation.adds));
    }
    EXPECT_LE(added, 1);
    if (acknowledged && operation.adds.has_value()) {
      EXPECT_EQ(added, 1);
    }
    EXPECT_EQ(store.models().Get("m")->checkpoint_count(),
              static_cast<int64_t>(page->items.size()));
  }

  // A version is deleted only where nothing holds it, whatever failed before.
  static void CheckHolds(CheckpointStore& store, const Operation& operation,
                         bool acknowledged) {
    const auto leases = store.leases().List("m", VersionName(kOld), "", 10);
    ASSERT_OK(leases.status());
    EXPECT_LE(leases->items.size(), operation.leases ? 1u : 0u);
    const auto old = store.checkpoints().Get("m", kOld);
    ASSERT_OK(old.status());
    EXPECT_TRUE(operation.pins || !old->pinned());
    EXPECT_EQ(store.models().Get("m")->pinned_count(), old->pinned() ? 1 : 0);
    if (acknowledged) {
      EXPECT_EQ(leases->items.size(), operation.leases ? 1u : 0u);
      EXPECT_EQ(old->pinned(), operation.pins);
    }
    const bool held = old->pinned() || !leases->items.empty() ||
                      store.checkpoints().Get("m", VersionName::Alias("production")).ok();
    const absl::Status deletion =
        store.checkpoints().Delete("m", kOld, {.validate_only = true}).status();
    EXPECT_EQ(absl::IsFailedPrecondition(deletion), held) << deletion;
  }

  static void CheckEmpty(StoreFixture& fixture) {
    CheckpointStore& store = fixture.store();
    const auto uploads = store.uploads().List("", "", 100);
    ASSERT_OK(uploads.status());
    for (const auto& upload : uploads->items) {
      EXPECT_OK(NamedUpload(store.uploads(), "m", upload.record.upload_id()).Delete());
    }
    Aliases::Move away;
    away.alias = "production";
    const absl::Status unnamed = store.aliases().Set("m", away).status();
    EXPECT_TRUE(unnamed.ok() || absl::IsNotFound(unnamed)) << unnamed;
    store.leases().Release("m", kOld, "worker").IgnoreError();
    EXPECT_OK(store.checkpoints().Change("m", kOld, {.pinned = false}, {}).status());
    EXPECT_OK(store.models().Delete("m", true, {}).status());
    fixture.Advance(absl::Hours(48));  // records of committed uploads
    EXPECT_LT(fixture.UsedAfterCollection(), 100);
    EXPECT_TRUE(fixture.Packs().empty());
  }
};

TEST_P(FailingCallTest, TheReportedOutcomeIsTrueAndARetrySucceeds) {
  const Operation& operation = GetParam();
  int faults = 0, answered_ok = 0;
  for (const FaultKind& kind : kFaults) {
    for (int64_t n = 1; !HasFailure(); ++n) {
      SCOPED_TRACE(std::string(operation.name) + ", call " + std::to_string(n) +
                   " fails " + kind.name);
      StoreFixture fixture;
      Prepare(fixture);
      const int64_t before = fixture.disk().calls();
      fixture.disk().SetFault({n, kind.for_good, kind.after_effect, kind.code});
      const absl::Status answer = operation.run(fixture.store());
      const bool failed = fixture.disk().calls() - before >= n;
      fixture.disk().SetFault({});
      SCOPED_TRACE(answer.ToString());
      if (failed && answer.ok()) ++answered_ok;
      EXPECT_TRUE(answer.ok() || answer.code() == kind.code);
      ASSERT_OK(fixture.store().maintenance().ReopenIfClosed());
      Check(fixture, operation, answer.ok());
      // Power loss instead of going on.
      fixture.Close();
      fixture.disk().LosePower();
      ASSERT_OK(fixture.Reopen());
      Check(fixture, operation, answer.ok());
      const absl::Status again = operation.run(fixture.store());
      EXPECT_TRUE(again.ok() || (operation.deletes && absl::IsNotFound(again))) << again;
      Check(fixture, operation, true);
      CheckEmpty(fixture);
      if (!failed) break;
      ++faults;
    }
  }
  std::printf("%s: %d faults, %d of them unnoticed by the caller\n", operation.name,
              faults, answered_ok);
  EXPECT_GT(faults, 5);
}

// The same without a restart in between.
TEST_P(FailingCallTest, TheStoreContinuesWithoutARestart) {
  const Operation& operation = GetParam();
  for (const FaultKind& kind : kFaults) {
    for (int64_t n = 1; !HasFailure(); ++n) {
      SCOPED_TRACE(std::string(operation.name) + ", call " + std::to_string(n) +
                   " fails " + kind.name);
      StoreFixture fixture;
      Prepare(fixture);
      const int64_t before = fixture.disk().calls();
      fixture.disk().SetFault({n, kind.for_good, kind.after_effect, kind.code});
      const absl::Status answer = operation.run(fixture.store());
      const bool failed = fixture.disk().calls() - before >= n;
      fixture.disk().SetFault({});
      ASSERT_OK(fixture.store().maintenance().ReopenIfClosed());
      const absl::Status again = operation.run(fixture.store());
      EXPECT_TRUE(again.ok() || (operation.deletes && absl::IsNotFound(again)))
          << again << " after " << answer;
      Check(fixture, operation, true);
      CheckEmpty(fixture);
      if (!failed) break;
    }
  }
}

// Recovery itself fails, and is tried again.
TEST(FailingRecoveryTest, AnOpenThatFailsIsRepeated) {
  StoreFixture fixture;
  const TestContent content = RandomContent(1, 2, kBytes);
  ASSERT_OK(SaveByUpload(fixture.store(), content).status());
  const std::string id =
      fixture.store().uploads().Create(RequestOf({}), 1, {})->upload_id();
  {
    auto sink = NamedUpload(fixture.store().uploads(), "m", id).OpenSink();
    for (const auto& chunk : ChunksOf(RandomContent(5, 1, (3 << 20) + 5000))) {
      ASSERT_OK((*sink)->Put(DigestOf(chunk), {chunk}).status());
    }
    // The seal of the last pack is journalled, and then the power goes.
    fixture.disk().SetFault({.at_call = 3, .for_good = true});
    EXPECT_FALSE((*sink)->Close().ok());
  }
  fixture.Close();
  for (int64_t n = 1; n <= 4; ++n) {
    fixture.disk().SetFault({.at_call = n, .for_good = true});
    (void)fixture.Reopen().ok();
    fixture.Close();
    fixture.disk().LosePower();
  }
  fixture.disk().SetFault({});
  ASSERT_OK(fixture.Reopen());
  EXPECT_EQ(*LoadAll(fixture.store(), 1), Expected(content));
  EXPECT_OK(NamedUpload(fixture.store().uploads(), "m", id).State().status());
}

INSTANTIATE_TEST_SUITE_P(Operations, FailingCallTest, ::testing::ValuesIn(Operations()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace modelstore::storage
