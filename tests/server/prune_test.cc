// PruneCheckpoints and the retention policy: each rule, what holds against them, what
// is told, and what is refused.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/protobuf/unknown_field_set.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Decision = v1::PruneCheckpointsResponse::Decision;

class PruneTest : public testing::Test {
 protected:
  // Versions 1 to 8: step 10, 20, ...; loss 8, 7, ... but for the fourth, whose loss
  // is not a number; accuracy where the version is even.
  void SetUp() override {
    for (int i = 1; i <= 8; ++i) {
      const TestTensor tensor = MakeTensor("w", v1::DTYPE_INT32, {1}, MakeBytes(4, i));
      std::vector<v1::SaveCheckpointRequest> requests(1);
      requests[0].set_parent("models/iris");
      requests[0].set_create_model(true);
      v1::Checkpoint& checkpoint = *requests[0].mutable_checkpoint();
      checkpoint.set_step(10 * i);
      checkpoint.set_loss(i == 4 ? std::nan("") : 9.0 - i);
      if (i % 2 == 0) (*checkpoint.mutable_metrics())["accuracy"] = 0.1 * (10 - i);
      *requests[0].mutable_manifest()->add_tensors() = tensor.tensor;
      AddChunk(&requests[0], tensor.bytes);
      requests[0].set_finish(true);
      auto saved = harness_.Save(requests);
      ASSERT_TRUE(saved.ok()) << saved.status();
    }
  }

  absl::StatusOr<v1::PruneCheckpointsResponse::Result> Prune(
      const v1::PruneCheckpointsRequest& request) {
    auto session = harness_.service().OpenOutbound(
        absl::StrCat(kStore, "PruneCheckpoints"), request.SerializeAsString());
    if (!session.ok()) return session.status();
    return ReadToEnd(**session);
  }
  absl::StatusOr<v1::PruneCheckpointsResponse::Result> ReadToEnd(
      OutboundSession& session) {
    std::optional<v1::PruneCheckpointsResponse::Result> result;
    while (true) {
      auto message = session.Next();
      if (!message.ok()) return message.status();
      if (!message->has_value()) break;
      if ((*message)->again_after) {
        absl::SleepFor(*(*message)->again_after);
        continue;
      }
      v1::PruneCheckpointsResponse response;
      EXPECT_TRUE(response.ParseFromString((*message)->head));
      EXPECT_FALSE(result.has_value()) << "nothing follows the result";
      if (response.has_result()) result = response.result();
      if (response.has_progress()) progress_.push_back(response.progress());
      for (const auto& decision : response.decisions().decisions()) {
        std::string rules(
            absl::StripPrefix(Decision::Outcome_Name(decision.outcome()), "OUTCOME_"));
        for (const int rule : decision.rules()) {
          absl::StrAppend(&rules, " ",
                          absl::StripPrefix(Decision::Rule_Name(rule), "RULE_"));
        }
        decisions_[decision.version()] = rules;
      }
    }
    EXPECT_TRUE(result.has_value());
    return *result;
  }
  // What this policy would let go.
  std::vector<int64_t> Leaving(const v1::RetentionPolicy& policy) {
    v1::PruneCheckpointsRequest request;
    request.set_parent("models/iris");
    *request.mutable_policy() = policy;
    request.set_validate_only(true);
    auto result = Prune(request);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    EXPECT_EQ(result->kept_count() + result->pruned_versions_size() +
                  result->held_versions_size(),
              8);
    return {result->pruned_versions().begin(), result->pruned_versions().end()};
  }
  static v1::RetentionPolicy Policy(int latest, int best = 0,
                                    const std::string& metric = "", bool maximize = false,
                                    int64_t steps = 0) {
    v1::RetentionPolicy policy;
    policy.set_keep_latest(latest);
    policy.set_keep_best(best);
    policy.set_metric(metric);
    policy.set_maximize(maximize);
    policy.set_keep_every_steps(steps);
    return policy;
  }
  std::vector<int64_t> Versions() {
    v1::ListCheckpointsRequest request;
    request.set_parent("models/iris");
    auto page = harness_.Call<v1::ListCheckpointsResponse>(
        absl::StrCat(kStore, "ListCheckpoints"), request);
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<int64_t> versions;
    for (const auto& checkpoint : page->checkpoints()) {
      versions.push_back(checkpoint.version());
    }
    std::sort(versions.begin(), versions.end());
    return versions;
  }
  void Update(int64_t version, const std::string& path,
              const std::function<void(v1::Checkpoint&)>& change) {
    v1::UpdateCheckpointRequest request;
    request.mutable_checkpoint()->set_name(
        absl::StrCat("models/iris/checkpoints/", version));
    change(*request.mutable_checkpoint());
    request.mutable_update_mask()->add_paths(path);
    auto updated =
        harness_.Call<v1::Checkpoint>(absl::StrCat(kStore, "UpdateCheckpoint"), request);
    ASSERT_TRUE(updated.ok()) << updated.status();
  }

  Harness harness_;
  // By version: its outcome and the rules, of all calls.
  std::map<int64_t, std::string> decisions_;
  std::vector<v1::PruneCheckpointsResponse::Progress> progress_;
};

TEST_F(PruneTest, EachRuleKeepsItsOwnAndTheNewestStays) {
  EXPECT_THAT(Leaving(Policy(3)), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(Leaving(Policy(100)), IsEmpty());
  // The lowest losses are those of 8 and 7.
  EXPECT_THAT(Leaving(Policy(0, 2, "loss")), ElementsAre(1, 2, 3, 4, 5, 6));
  // The worst; the one that is not a number is none of them. 8 is the newest.
  EXPECT_THAT(Leaving(Policy(0, 4, "loss", true)), ElementsAre(4, 6, 7));
  // What lacks the metric cannot be ranked.
  EXPECT_THAT(Leaving(Policy(0, 2, "accuracy", true)), ElementsAre(6));
  v1::RetentionPolicy ranked = Policy(0, 2, "accuracy", true);
  ranked.set_prune_unranked(true);
  EXPECT_THAT(Leaving(ranked), ElementsAre(1, 3, 5, 6, 7));
  EXPECT_THAT(Leaving(Policy(0, 0, "", false, 40)), ElementsAre(1, 2, 3, 5, 6, 7));
  v1::RetentionPolicy young;
  young.mutable_keep_younger_than()->set_seconds(3600);
  EXPECT_THAT(Leaving(young), IsEmpty());
}

// As a model's record may hold it: whole seconds, in field 6.
TEST_F(PruneTest, AStoredPolicyInSecondsKeepsYoungVersions) {
  v1::RetentionPolicy policy;
  policy.GetReflection()->MutableUnknownFields(&policy)->AddVarint(6, 3600);
  v1::UpdateModelRequest update;
  update.mutable_model()->set_name("models/iris");
  *update.mutable_model()->mutable_retention_policy() = policy;
  update.mutable_update_mask()->add_paths("retention_policy");
  const auto model =
      harness_.Call<v1::Model>(absl::StrCat(kStore, "UpdateModel"), update);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->retention_policy().keep_younger_than().seconds(), 3600);
  EXPECT_EQ(model->retention_policy().ByteSizeLong(),
            model->retention_policy().keep_younger_than().ByteSizeLong() + 2);
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  const auto pruned = Prune(request);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  EXPECT_EQ(pruned->pruned_versions_size(), 0);
  EXPECT_EQ(decisions_.at(1), "KEPT YOUNGER");
}

TEST_F(PruneTest, AnyRuleKeeps) {
  v1::RetentionPolicy policy = Policy(2, 1, "accuracy", true, 50);
  policy.set_prune_unranked(true);
  EXPECT_THAT(Leaving(policy), ElementsAre(1, 3, 4, 6));
  EXPECT_EQ(decisions_.at(8), "KEPT NEWEST LATEST");
  EXPECT_EQ(decisions_.at(5), "KEPT EVERY_STEPS");
  EXPECT_EQ(decisions_.at(2), "KEPT BEST");
  EXPECT_EQ(decisions_.at(6), "PRUNED");
  policy.set_prune_unranked(false);
  EXPECT_THAT(Leaving(policy), ElementsAre(4, 6));
  EXPECT_EQ(decisions_.at(1), "KEPT UNRANKED");
}

TEST_F(PruneTest, AMetricThatNoVersionHasIsRefusedIfAVersionWouldBeLost) {
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(0, 2, "acuracy", true);
  request.mutable_policy()->set_prune_unranked(true);
  const absl::Status status = Prune(request).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ(status.message(),
            "models/iris not pruned: none of its 8 versions has metric \"acuracy\"; they "
            "have accuracy, loss; correct the policy");
  EXPECT_EQ(Versions().size(), 8u);
}

TEST_F(PruneTest, AMetricThatNoVersionHasBlocksNoOtherRule) {
  Update(2, "expire_time",
         [](v1::Checkpoint& c) { c.mutable_expire_time()->set_seconds(1); });
  EXPECT_THAT(Leaving(Policy(0, 2, "acuracy", true)), ElementsAre(2));
  EXPECT_EQ(decisions_.at(1), "KEPT UNRANKED");
  v1::RetentionPolicy all = Policy(100, 2, "acuracy", true);
  all.set_prune_unranked(true);
  EXPECT_THAT(Leaving(all), ElementsAre(2));
}

TEST_F(PruneTest, AVersionWithoutAStepStaysUnlessThePolicySaysOtherwise) {
  constexpr int kVersions = 101;  // Several pages.
  for (int i = 0; i < kVersions; ++i) {
    ASSERT_TRUE(harness_
                    .SaveTensors("models/plain", {MakeTensor("w", v1::DTYPE_INT32, {1},
                                                             MakeBytes(4, i + 1))})
                    .ok());
  }
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/plain");
  *request.mutable_policy() = Policy(0, 0, "", false, 10);
  auto result = Prune(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pruned_count(), 0);
  EXPECT_EQ(result->kept_count(), kVersions);
  EXPECT_EQ(decisions_.at(1), "KEPT UNRANKED");
  request.mutable_policy()->set_prune_unranked(true);
  result = Prune(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pruned_count(), kVersions - 1);
  EXPECT_EQ(decisions_.at(1), "PRUNED");
}

TEST_F(PruneTest, WhatAnotherCallDeletedConcurrentlyIsNotReported) {
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(2);
  auto session = harness_.service().OpenOutbound(absl::StrCat(kStore, "PruneCheckpoints"),
                                                 request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE((*session)->Next().ok());
  v1::DeleteCheckpointRequest one;
  one.set_name("models/iris/checkpoints/3");
  ASSERT_TRUE(harness_
                  .Call<v1::DeleteCheckpointResponse>(
                      absl::StrCat(kStore, "DeleteCheckpoint"), one)
                  .ok());
  auto result = ReadToEnd(**session);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->pruned_versions(), ElementsAre(1, 2, 4, 5, 6));
  EXPECT_EQ(result->pruned_count(), 5);
  EXPECT_EQ(result->kept_count(), 2);
  EXPECT_EQ(decisions_.size(), 7u);
  EXPECT_EQ(decisions_.count(3), 0u);
}

TEST_F(PruneTest, MemoryForTheVersionsIsReserved) {
  ServiceOptions options;
  options.memory_budget_bytes = 1000;
  auto service = MakeService(&harness_.store(), options);
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(1);
  auto session = service->OpenOutbound(absl::StrCat(kStore, "PruneCheckpoints"),
                                       request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT((*session)->Next(), FailsWith(absl::StatusCode::kResourceExhausted,
                                            "the call needs 1472 bytes"));
  EXPECT_EQ(Versions().size(), 8u);
}

TEST_F(PruneTest, APruneDoesNotTouchARecreatedModel) {
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(1);
  auto session = harness_.service().OpenOutbound(absl::StrCat(kStore, "PruneCheckpoints"),
                                                 request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  // It has looked at the versions, and its client reads nothing for long.
  ASSERT_TRUE((*session)->Next().ok());
  v1::GetModelRequest get;
  get.set_name("models/iris");
  const auto old = harness_.Call<v1::Model>(absl::StrCat(kStore, "GetModel"), get);
  ASSERT_TRUE(old.ok()) << old.status();
  v1::DeleteModelRequest gone;
  gone.set_name("models/iris");
  gone.set_force(true);
  gone.set_model_uid(old->uid());
  const std::string method = absl::StrCat(kStore, "DeleteModel");
  ASSERT_TRUE(harness_.Call<v1::DeleteModelResponse>(method, gone).ok());
  SetUp();
  EXPECT_TRUE(absl::IsNotFound(ReadToEnd(**session).status()));
  EXPECT_EQ(Versions().size(), 8u);
  // Nor to a repetition of either call that names the old one.
  EXPECT_TRUE(
      absl::IsNotFound(harness_.Call<v1::DeleteModelResponse>(method, gone).status()));
  request.set_model_uid(old->uid());
  EXPECT_TRUE(absl::IsNotFound(Prune(request).status()));
  v1::DeleteCheckpointRequest one;
  one.set_name("models/iris/checkpoints/1");
  one.set_model_uid(old->uid());
  EXPECT_TRUE(absl::IsNotFound(harness_
                                   .Call<v1::DeleteCheckpointResponse>(
                                       absl::StrCat(kStore, "DeleteCheckpoint"), one)
                                   .status()));
  EXPECT_EQ(Versions().size(), 8u);
}

TEST_F(PruneTest, AVersionThatWasChangedConcurrentlyStays) {
  for (const int64_t version : {2, 3}) {
    Update(version, "expire_time",
           [](v1::Checkpoint& c) { c.mutable_expire_time()->set_seconds(1); });
  }
  // The first deletion waits until the other version was changed.
  std::atomic<bool> deleted = false;
  std::atomic<bool> changed = false;
  harness_.store().WatchModels([&](absl::string_view) {
    if (deleted.exchange(true)) return;
    for (int i = 0; i < 1000 && !changed; ++i) absl::SleepFor(absl::Milliseconds(10));
  });
  std::thread prune([&] {
    v1::PruneCheckpointsRequest request;
    request.set_parent("models/iris");
    EXPECT_TRUE(Prune(request).ok());
  });
  while (!deleted) absl::SleepFor(absl::Milliseconds(1));
  const std::vector<int64_t> left = Versions();
  EXPECT_EQ(left.size(), 7u);
  Update(std::count(left.begin(), left.end(), 2) == 1 ? 2 : 3, "expire_time",
         [](v1::Checkpoint& c) { c.mutable_expire_time()->set_seconds(1LL << 33); });
  changed = true;
  prune.join();
  harness_.store().WatchModels(nullptr);
  EXPECT_EQ(Versions().size(), 7u);
}

TEST_F(PruneTest, WithoutARuleOnlyWhatHasExpiredGoes) {
  EXPECT_THAT(Leaving({}), IsEmpty());
  for (int64_t version : {2, 8}) {
    Update(version, "expire_time",
           [](v1::Checkpoint& c) { c.mutable_expire_time()->set_seconds(1); });
  }
  Update(3, "expire_time",
         [](v1::Checkpoint& c) { c.mutable_expire_time()->set_seconds(1LL << 33); });
  EXPECT_THAT(Leaving({}), ElementsAre(2));
  // Whatever the rules.
  EXPECT_THAT(Leaving(Policy(100)), ElementsAre(2));
  EXPECT_THAT(Versions(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

TEST_F(PruneTest, ThePolicyOfTheModelCountsUnlessTheRequestHasOne) {
  v1::UpdateModelRequest update;
  update.mutable_model()->set_name("models/iris");
  *update.mutable_model()->mutable_retention_policy() = Policy(5);
  update.mutable_update_mask()->add_paths("retention_policy");
  auto model = harness_.Call<v1::Model>(absl::StrCat(kStore, "UpdateModel"), update);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->retention_policy().keep_latest(), 5);
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  auto result = Prune(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->pruned_versions(), ElementsAre(1, 2, 3));
  EXPECT_EQ(result->kept_count(), 5);
  EXPECT_THAT(Versions(), ElementsAre(4, 5, 6, 7, 8));
  *request.mutable_policy() = Policy(4);
  result = Prune(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->pruned_versions(), ElementsAre(4));
  // Done again, it finds nothing to do.
  result = Prune(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->pruned_versions(), IsEmpty());
}

TEST_F(PruneTest, AliasPinLeaseAndOpenUploadHoldAndAreReported) {
  v1::SetAliasRequest alias;
  alias.set_name("models/iris/aliases/production");
  alias.set_version(1);
  ASSERT_TRUE(harness_.Call<v1::Alias>(absl::StrCat(kStore, "SetAlias"), alias).ok());
  Update(2, "pinned", [](v1::Checkpoint& c) { c.set_pinned(true); });
  v1::AcquireLeaseRequest lease;
  lease.set_checkpoint("models/iris/checkpoints/3");
  lease.set_holder("worker");
  lease.mutable_time_to_live()->set_seconds(60);
  ASSERT_TRUE(harness_.Call<v1::Lease>(absl::StrCat(kStore, "AcquireLease"), lease).ok());
  v1::CreateUploadRequest upload;
  upload.set_parent("models/iris");
  upload.mutable_upload()->mutable_checkpoint()->set_base_checkpoint(
      "models/iris/checkpoints/4");
  auto opened =
      harness_.Call<v1::Upload>("/modelstore.v1.CheckpointTransfer/CreateUpload", upload);
  ASSERT_TRUE(opened.ok()) << opened.status();
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(2);
  for (const bool validate_only : {true, false}) {
    request.set_validate_only(validate_only);
    auto result = Prune(request);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(result->pruned_versions(), ElementsAre(5, 6));
    EXPECT_THAT(result->held_versions(), ElementsAre(1, 2, 3, 4));
    EXPECT_EQ(result->kept_count(), 2);
    EXPECT_EQ(result->freed_bytes() + result->waiting_bytes(), validate_only ? 0 : 8);
  }
  EXPECT_THAT(Versions(), ElementsAre(1, 2, 3, 4, 7, 8));
}

TEST_F(PruneTest, BytesThatVersionsShareAreReportedOnce) {
  // Two versions of the same 4 bytes, and one of others.
  for (const int seed : {50, 50, 51}) {
    ASSERT_TRUE(harness_
                    .SaveTensors("models/twins", {MakeTensor("w", v1::DTYPE_INT32, {1},
                                                             MakeBytes(4, seed))})
                    .ok());
  }
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/twins");
  *request.mutable_policy() = Policy(1);
  auto result = Prune(request);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->pruned_versions(), ElementsAre(1, 2));
  EXPECT_EQ(result->freed_bytes() + result->waiting_bytes(), 4);
}

TEST_F(PruneTest, ACancelledCallDeletesNothingMore) {
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(1);
  auto session = harness_.service().OpenOutbound(absl::StrCat(kStore, "PruneCheckpoints"),
                                                 request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  (*session)->Cancel();
  EXPECT_TRUE(absl::IsCancelled((*session)->Next().status()));
  EXPECT_EQ(Versions().size(), 8u);
}

TEST_F(PruneTest, ItSaysHowFarItIsWhileItDeletesSlowly) {
  // Called after each deletion.
  harness_.store().WatchModels(
      [](absl::string_view) { absl::SleepFor(absl::Milliseconds(250)); });
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(1);
  auto result = Prune(request);
  harness_.store().WatchModels(nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->pruned_count(), 7);
  // Of 1.75 s of deletions; the last is after them.
  ASSERT_GE(progress_.size(), 3u);
  EXPECT_GT(progress_[1].deleted_checkpoints(), 0);
  EXPECT_LT(progress_[1].deleted_checkpoints(), 7);
  for (const auto& progress : progress_) {
    EXPECT_EQ(progress.checked_checkpoints(), 8);
    EXPECT_EQ(progress.total_checkpoints(), 8);
    EXPECT_EQ(progress.checkpoints_to_delete(), 7);
  }
  EXPECT_EQ(progress_.back().deleted_checkpoints(), 7);
}

TEST_F(PruneTest, ACallThatIsCancelledWhileItDeletesStopsBetweenTwoVersions) {
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/iris");
  *request.mutable_policy() = Policy(1);
  auto session = harness_.service().OpenOutbound(absl::StrCat(kStore, "PruneCheckpoints"),
                                                 request.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  std::atomic<int> deletions = 0;
  harness_.store().WatchModels([&](absl::string_view) {
    if (++deletions == 3) (*session)->Cancel();
  });
  EXPECT_TRUE(absl::IsCancelled(ReadToEnd(**session).status()));
  session->reset();
  harness_.store().WatchModels(nullptr);
  EXPECT_EQ(deletions, 3);
  EXPECT_EQ(Versions().size(), 5u);
}

TEST_F(PruneTest, ARuleThatMakesNoSenseIsRefusedByItsField) {
  auto refused = [&](const std::function<void(v1::RetentionPolicy&)>& change) {
    v1::PruneCheckpointsRequest request;
    request.set_parent("models/iris");
    change(*request.mutable_policy());
    const absl::Status status = Prune(request).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    v1::UpdateModelRequest update;
    update.mutable_model()->set_name("models/iris");
    change(*update.mutable_model()->mutable_retention_policy());
    update.mutable_update_mask()->add_paths("retention_policy");
    EXPECT_TRUE(absl::IsInvalidArgument(
        harness_.Call<v1::Model>(absl::StrCat(kStore, "UpdateModel"), update).status()));
    return std::string(status.message());
  };
  using P = v1::RetentionPolicy;
  EXPECT_THAT(refused([](P& p) { p.set_keep_latest(-1); }),
              HasSubstr("policy.keep_latest"));
  EXPECT_THAT(refused([](P& p) { p.set_keep_best(-1); }), HasSubstr("policy.keep_best"));
  EXPECT_THAT(refused([](P& p) { p.set_keep_every_steps(-1); }),
              HasSubstr("policy.keep_every_steps"));
  EXPECT_THAT(refused([](P& p) { p.mutable_keep_younger_than()->set_seconds(-1); }),
              HasSubstr("policy.keep_younger_than"));
  EXPECT_THAT(refused([](P& p) { p.mutable_keep_younger_than()->set_nanos(-1); }),
              HasSubstr("policy.keep_younger_than"));
  EXPECT_THAT(refused([](P& p) { p.set_keep_best(1); }), HasSubstr("policy.metric"));
  EXPECT_THAT(refused([](P& p) { p.set_metric(std::string(257, 'm')); }),
              HasSubstr("policy.metric: has 257 bytes, at most 256 are allowed"));
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/none");
  EXPECT_TRUE(absl::IsNotFound(Prune(request).status()));
  request.set_parent("iris");
  EXPECT_TRUE(absl::IsInvalidArgument(Prune(request).status()));
}

}  // namespace
}  // namespace modelstore::server
