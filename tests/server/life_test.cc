// Aliases, leases, pins and labels as an administrator or a serving worker sees
// them.
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class LifeTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i) {
      auto saved = harness_.SaveTensors(
          "models/iris", {MakeTensor("w", v1::DTYPE_INT32, {1}, MakeBytes(4, i + 1))});
      ASSERT_TRUE(saved.ok()) << saved.status();
    }
  }

  template <typename Response>
  absl::StatusOr<Response> Call(const char* method,
                                const google::protobuf::Message& request) {
    return harness_.Call<Response>(absl::StrCat(kStore, method), request);
  }
  absl::StatusOr<v1::Alias> Set(const std::string& alias, int64_t version,
                                std::optional<int64_t> expected = {},
                                const std::string& note = "") {
    v1::SetAliasRequest request;
    request.set_name(absl::StrCat("models/iris/aliases/", alias));
    request.set_version(version);
    if (expected) request.set_expected_version(*expected);
    request.set_note(note);
    return Call<v1::Alias>("SetAlias", request);
  }
  absl::StatusOr<v1::Checkpoint> Get(const std::string& version) {
    v1::GetCheckpointRequest request;
    request.set_name("models/iris/checkpoints/" + version);
    return Call<v1::Checkpoint>("GetCheckpoint", request);
  }
  absl::StatusOr<v1::Model> GetModel() {
    v1::GetModelRequest request;
    request.set_name("models/iris");
    return Call<v1::Model>("GetModel", request);
  }
  absl::StatusOr<v1::Lease> Acquire(const std::string& version, const std::string& holder,
                                    int64_t seconds) {
    v1::AcquireLeaseRequest request;
    request.set_checkpoint("models/iris/checkpoints/" + version);
    request.set_holder(holder);
    request.mutable_time_to_live()->set_seconds(seconds);
    return Call<v1::Lease>("AcquireLease", request);
  }
  absl::StatusOr<v1::DeleteCheckpointResponse> Delete(const std::string& version,
                                                      bool validate_only = false) {
    v1::DeleteCheckpointRequest request;
    request.set_name("models/iris/checkpoints/" + version);
    request.set_validate_only(validate_only);
    return Call<v1::DeleteCheckpointResponse>("DeleteCheckpoint", request);
  }

  Harness harness_;
};

TEST_F(LifeTest, AnAliasStandsForItsVersionInEveryRequestAndNeverInAnAnswer) {
  EXPECT_THAT(Get("production"), FailsWith(absl::StatusCode::kNotFound, "production"));
  auto alias = Set("production", 2, {}, "accuracy 0.97");
  ASSERT_TRUE(alias.ok()) << alias.status();
  EXPECT_EQ(alias->name(), "models/iris/aliases/production");
  EXPECT_EQ(alias->version(), 2);
  EXPECT_GT(alias->update_time().seconds(), 0);
  auto got = Get("production");
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->name(), "models/iris/checkpoints/2");
  EXPECT_THAT(got->aliases(), ElementsAre("production"));
  EXPECT_EQ(GetModel()->aliases().at("production"), 2);
  v1::LoadCheckpointRequest load;
  load.set_name("models/iris/checkpoints/production");
  auto loaded = harness_.Load(load);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->plan.checkpoint().version(), 2);
  v1::ListTensorsRequest tensors;
  tensors.set_parent("models/iris/checkpoints/production");
  EXPECT_TRUE(Call<v1::ListTensorsResponse>("ListTensors", tensors).ok());

  v1::ListAliasesRequest list;
  list.set_parent("models/iris");
  auto aliases = Call<v1::ListAliasesResponse>("ListAliases", list);
  ASSERT_TRUE(aliases.ok()) << aliases.status();
  ASSERT_EQ(aliases->aliases_size(), 1);
  EXPECT_EQ(aliases->aliases(0).note(), "accuracy 0.97");
}

TEST_F(LifeTest, TheHistoryAnswersWhoMovedProductionFromWhereToWhereWhenAndWhy) {
  ASSERT_TRUE(Set("production", 1, {}, "first").ok());
  ASSERT_TRUE(Set("production", 3, 1, "better").ok());
  v1::DeleteAliasRequest gone;
  gone.set_name("models/iris/aliases/production");
  gone.set_expected_version(3);
  gone.set_note("retired");
  ASSERT_TRUE(Call<google::protobuf::Empty>("DeleteAlias", gone).ok());
  EXPECT_THAT(Call<google::protobuf::Empty>("DeleteAlias", gone),
              FailsWith(absl::StatusCode::kNotFound, "aliases/production"));
  v1::ListAliasMovesRequest request;
  request.set_parent("models/iris");
  request.set_alias("production");
  request.set_page_size(2);
  auto page = Call<v1::ListAliasMovesResponse>("ListAliasMoves", request);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->moves_size(), 2);
  EXPECT_EQ(page->moves(0).note(), "retired");
  EXPECT_FALSE(page->moves(0).has_to_version());
  EXPECT_EQ(page->moves(1).from_version(), 1);
  EXPECT_EQ(page->moves(1).to_version(), 3);
  EXPECT_GT(page->moves(1).move_time().seconds(), 0);
  request.set_page_token(page->next_page_token());
  page = Call<v1::ListAliasMovesResponse>("ListAliasMoves", request);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->moves_size(), 1);
  EXPECT_FALSE(page->moves(0).has_from_version());
  EXPECT_EQ(page->next_page_token(), "");
}

TEST_F(LifeTest, AnAliasThatExistsIsNotRecreated) {
  v1::SetAliasRequest request;
  request.set_name("models/iris/aliases/production");
  request.set_version(1);
  request.set_create_only(true);
  ASSERT_TRUE(Call<v1::Alias>("SetAlias", request).ok());
  request.set_version(2);
  EXPECT_THAT(Call<v1::Alias>("SetAlias", request),
              FailsWith(absl::StatusCode::kAborted, "names version 1"));
  request.set_expected_version(1);
  EXPECT_THAT(Call<v1::Alias>("SetAlias", request), FailsWith(kInvalid, "create_only"));
  EXPECT_EQ(GetModel()->aliases().at("production"), 1);
}

TEST_F(LifeTest, BadAliasesAreRefusedByField) {
  EXPECT_THAT(Set("latest", 1), FailsWith(kInvalid, "name"));
  EXPECT_THAT(Set("Production", 1), FailsWith(kInvalid, "name"));
  EXPECT_THAT(Set("7", 1), FailsWith(kInvalid, "name"));
  EXPECT_THAT(Set("best", 0), FailsWith(kInvalid, "version"));
  EXPECT_THAT(Set("best", -2), FailsWith(kInvalid, "version"));
  EXPECT_THAT(Set("best", 1, -1), FailsWith(kInvalid, "expected_version"));
  EXPECT_THAT(Set("best", 1, 0), FailsWith(kInvalid, "expected_version"));
  EXPECT_THAT(Set("best", 1, {}, std::string(4097, 'x')), FailsWith(kInvalid, "note"));
  EXPECT_THAT(Set("best", 9), FailsWith(absl::StatusCode::kNotFound, "checkpoints/9"));
  ASSERT_TRUE(Set("best", 1).ok());
  EXPECT_THAT(Set("best", 2, 3), FailsWith(absl::StatusCode::kAborted, "version 1"));
  v1::DeleteAliasRequest gone;
  gone.set_name("models/iris/aliases/best");
  gone.set_expected_version(0);
  EXPECT_THAT(Call<google::protobuf::Empty>("DeleteAlias", gone),
              FailsWith(kInvalid, "expected_version"));
  v1::SetAliasRequest dry;
  dry.set_name("models/iris/aliases/dry");
  dry.set_version(1);
  dry.set_validate_only(true);
  EXPECT_TRUE(Call<v1::Alias>("SetAlias", dry).ok());
  EXPECT_FALSE(GetModel()->aliases().contains("dry"));
}

TEST_F(LifeTest, DeletingTakesANumberAndNamesWhatHolds) {
  ASSERT_TRUE(Set("production", 1).ok());
  EXPECT_THAT(Delete("production"), FailsWith(kInvalid, "number"));
  EXPECT_THAT(Delete("latest"), FailsWith(kInvalid, "number"));
  const auto held = absl::StatusCode::kFailedPrecondition;
  EXPECT_THAT(Delete("1", true), FailsWith(held, "alias production"));
  EXPECT_THAT(Delete("1"), FailsWith(held, "alias production"));
  ASSERT_TRUE(Acquire("2", "serving-7", 60).ok());
  EXPECT_THAT(Delete("2"), FailsWith(held, "lease of serving-7"));
  v1::UpdateCheckpointRequest pin;
  pin.mutable_checkpoint()->set_name("models/iris/checkpoints/latest");
  pin.mutable_checkpoint()->set_pinned(true);
  pin.mutable_update_mask()->add_paths("pinned");
  auto pinned = Call<v1::Checkpoint>("UpdateCheckpoint", pin);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(pinned->version(), 3);
  EXPECT_TRUE(pinned->pinned());
  EXPECT_THAT(Delete("3"), FailsWith(held, "pin"));
  v1::DeleteModelRequest model;
  model.set_name("models/iris");
  model.set_force(true);
  EXPECT_THAT(Call<v1::DeleteModelResponse>("DeleteModel", model),
              FailsWith(held, "alias production"));
}

TEST_F(LifeTest, ALeaseIsTakenByAnyNameAndGivenBackByItsOwn) {
  auto lease = Acquire("latest", "serving-7", 60);
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_EQ(lease->name(), "models/iris/checkpoints/3/leases/serving-7");
  EXPECT_EQ(lease->checkpoint(), "models/iris/checkpoints/3");
  EXPECT_EQ(lease->expire_time().seconds() - lease->create_time().seconds(), 60);
  v1::ListLeasesRequest list;
  list.set_parent("models/iris/checkpoints/3");
  auto leases = Call<v1::ListLeasesResponse>("ListLeases", list);
  ASSERT_TRUE(leases.ok()) << leases.status();
  ASSERT_EQ(leases->leases_size(), 1);
  EXPECT_EQ(leases->leases(0).holder(), "serving-7");
  EXPECT_EQ(leases->leases(0).name(), lease->name());
  list.set_parent("models/iris");
  EXPECT_EQ(Call<v1::ListLeasesResponse>("ListLeases", list)->leases_size(), 1);

  v1::ReleaseLeaseRequest release;
  release.set_name("models/iris/checkpoints/latest/leases/serving-7");
  EXPECT_THAT(Call<google::protobuf::Empty>("ReleaseLease", release),
              FailsWith(kInvalid, "number"));
  release.set_name(lease->name());
  EXPECT_TRUE(Call<google::protobuf::Empty>("ReleaseLease", release).ok());
  EXPECT_THAT(Call<google::protobuf::Empty>("ReleaseLease", release),
              FailsWith(absl::StatusCode::kNotFound, "serving-7"));
  EXPECT_TRUE(Delete("3").ok());

  EXPECT_THAT(Acquire("1", "", 60), FailsWith(kInvalid, "holder"));
  EXPECT_THAT(Acquire("1", "a\nb", 60), FailsWith(kInvalid, "holder"));
  EXPECT_THAT(Acquire("1", "a/b", 60), FailsWith(kInvalid, "holder"));
  EXPECT_THAT(Acquire("1", "w", 0), FailsWith(kInvalid, "time_to_live"));
  EXPECT_THAT(Acquire("1", "w", 86400 * 31), FailsWith(kInvalid, "time_to_live"));
  EXPECT_THAT(Acquire("9", "w", 60), FailsWith(absl::StatusCode::kNotFound, "/9"));
}

TEST_F(LifeTest, UpdatesChangeOnlyTheFieldsOfTheirMask) {
  v1::UpdateCheckpointRequest request;
  auto* checkpoint = request.mutable_checkpoint();
  checkpoint->set_name("models/iris/checkpoints/2");
  checkpoint->set_description("the good one");
  (*checkpoint->mutable_labels())["data"] = "clean";
  checkpoint->set_pinned(true);
  checkpoint->mutable_expire_time()->set_seconds(2'000'000'000);
  EXPECT_THAT(Call<v1::Checkpoint>("UpdateCheckpoint", request),
              FailsWith(kInvalid, "update_mask"));
  request.mutable_update_mask()->add_paths("loss");
  EXPECT_THAT(Call<v1::Checkpoint>("UpdateCheckpoint", request),
              FailsWith(kInvalid, "`loss` cannot be changed"));
  request.mutable_update_mask()->clear_paths();
  request.mutable_update_mask()->add_paths("labels");
  request.mutable_update_mask()->add_paths("expire_time");
  const std::string etag = Get("2")->etag();
  checkpoint->set_etag(etag);
  auto changed = Call<v1::Checkpoint>("UpdateCheckpoint", request);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->labels().at("data"), "clean");
  EXPECT_EQ(changed->expire_time().seconds(), 2'000'000'000);
  EXPECT_EQ(changed->description(), "");
  EXPECT_FALSE(changed->pinned());
  EXPECT_NE(changed->etag(), etag);
  EXPECT_THAT(Call<v1::Checkpoint>("UpdateCheckpoint", request),
              FailsWith(absl::StatusCode::kAborted, "etag"));
  checkpoint->clear_etag();
  checkpoint->mutable_expire_time()->set_seconds(-1);
  EXPECT_THAT(Call<v1::Checkpoint>("UpdateCheckpoint", request),
              FailsWith(kInvalid, "checkpoint.expire_time"));

  v1::UpdateModelRequest model;
  model.mutable_model()->set_name("models/iris");
  model.mutable_model()->set_description("flowers");
  model.mutable_model()->mutable_retention_policy()->set_keep_latest(3);
  model.mutable_update_mask()->add_paths("description");
  model.set_validate_only(true);
  ASSERT_TRUE(Call<v1::Model>("UpdateModel", model).ok());
  EXPECT_EQ(GetModel()->description(), "");
  model.set_validate_only(false);
  auto after = Call<v1::Model>("UpdateModel", model);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->description(), "flowers");
  EXPECT_FALSE(after->has_retention_policy());
  EXPECT_EQ(GetModel()->SerializeAsString(), after->SerializeAsString());
  model.mutable_update_mask()->add_paths("retention_policy");
  EXPECT_EQ(Call<v1::Model>("UpdateModel", model)->retention_policy().keep_latest(), 3);
  model.mutable_model()->mutable_retention_policy()->set_keep_latest(-1);
  EXPECT_THAT(Call<v1::Model>("UpdateModel", model),
              FailsWith(kInvalid, "model.retention_policy.keep_latest"));
  model.mutable_model()->set_etag("stale");
  model.mutable_model()->clear_retention_policy();
  EXPECT_THAT(Call<v1::Model>("UpdateModel", model),
              FailsWith(absl::StatusCode::kAborted, "etag"));
}

// The errors that every list and every change has in common.
TEST_F(LifeTest, EveryRequestRefusesWhatDoesNotExistAndWhatIsMalformed) {
  const auto kMissing = absl::StatusCode::kNotFound;
  v1::SetAliasRequest set;
  set.set_version(1);
  set.set_name("models/absent/aliases/a");
  EXPECT_THAT(Call<v1::Alias>("SetAlias", set), FailsWith(kMissing, "models/absent"));
  v1::DeleteAliasRequest unset;
  unset.set_name("models/absent/aliases/a");
  EXPECT_THAT(Call<google::protobuf::Empty>("DeleteAlias", unset),
              FailsWith(kMissing, "models/absent"));
  unset.set_name("models/iris");
  EXPECT_THAT(Call<google::protobuf::Empty>("DeleteAlias", unset),
              FailsWith(kInvalid, "name"));
  v1::AcquireLeaseRequest acquire;
  acquire.set_holder("w");
  acquire.mutable_time_to_live()->set_seconds(9);
  acquire.set_checkpoint("models/absent/checkpoints/1");
  EXPECT_THAT(Call<v1::Lease>("AcquireLease", acquire),
              FailsWith(kMissing, "models/absent"));
  acquire.set_checkpoint("models/iris/checkpoints/production");
  EXPECT_THAT(Call<v1::Lease>("AcquireLease", acquire),
              FailsWith(kMissing, "aliases/production"));
  v1::ReleaseLeaseRequest release;
  release.set_name("models/iris/checkpoints/9/leases/w");
  EXPECT_THAT(Call<google::protobuf::Empty>("ReleaseLease", release),
              FailsWith(kMissing, "checkpoints/9"));
  v1::UpdateCheckpointRequest checkpoint;
  checkpoint.mutable_update_mask()->add_paths("pinned");
  checkpoint.mutable_checkpoint()->set_name("models/iris/checkpoints/9");
  EXPECT_THAT(Call<v1::Checkpoint>("UpdateCheckpoint", checkpoint),
              FailsWith(kMissing, "checkpoints/9"));
  checkpoint.mutable_checkpoint()->set_name("iris");
  EXPECT_THAT(Call<v1::Checkpoint>("UpdateCheckpoint", checkpoint),
              FailsWith(kInvalid, "checkpoint.name"));
  v1::UpdateModelRequest model;
  model.mutable_update_mask()->add_paths("description");
  model.mutable_model()->set_name("models/absent");
  EXPECT_THAT(Call<v1::Model>("UpdateModel", model), FailsWith(kMissing, "absent"));
  model.mutable_model()->set_name("models/iris");
  (*model.mutable_model()->mutable_labels())[""] = "x";
  EXPECT_THAT(Call<v1::Model>("UpdateModel", model), FailsWith(kInvalid, "model.labels"));
  model.mutable_model()->clear_labels();
  model.mutable_update_mask()->add_paths("name");
  EXPECT_THAT(Call<v1::Model>("UpdateModel", model), FailsWith(kInvalid, "update_mask"));
}

template <typename Response, typename Request>
void RefusesBadPages(Harness& harness, const std::string& method) {
  Request request;
  request.set_parent("models/absent");
  const std::string name = absl::StrCat(kStore, method);
  EXPECT_THAT(harness.Call<Response>(name, request),
              FailsWith(absl::StatusCode::kNotFound, "models/absent"));
  request.set_parent("iris");
  EXPECT_THAT(harness.Call<Response>(name, request), FailsWith(kInvalid, "parent"));
  request.set_parent("models/iris");
  request.set_page_size(-1);
  EXPECT_THAT(harness.Call<Response>(name, request), FailsWith(kInvalid, "page_size"));
  request.set_page_size(1);
  request.set_page_token("AAAA");
  EXPECT_THAT(harness.Call<Response>(name, request), FailsWith(kInvalid, "page_token"));
}

TEST_F(LifeTest, EveryListRefusesBadPages) {
  RefusesBadPages<v1::ListAliasesResponse, v1::ListAliasesRequest>(harness_,
                                                                   "ListAliases");
  RefusesBadPages<v1::ListAliasMovesResponse, v1::ListAliasMovesRequest>(
      harness_, "ListAliasMoves");
  RefusesBadPages<v1::ListLeasesResponse, v1::ListLeasesRequest>(harness_, "ListLeases");
  v1::ListAliasMovesRequest moves;
  moves.set_parent("models/iris");
  moves.set_alias("Not An Alias");
  EXPECT_THAT(Call<v1::ListAliasMovesResponse>("ListAliasMoves", moves),
              FailsWith(kInvalid, "alias"));
  v1::ListLeasesRequest leases;
  leases.set_parent("models/iris/checkpoints/9");
  EXPECT_THAT(Call<v1::ListLeasesResponse>("ListLeases", leases),
              FailsWith(absl::StatusCode::kNotFound, "checkpoints/9"));
}

class FilterTest : public LifeTest {
 protected:
  // Version v has epoch v - 1; loss 1/v, NaN for 3, none for 5; accuracy v for
  // even ones; the label `parity`.
  void SetUp() override {
    for (int v = 1; v <= 8; ++v) {
      v1::SaveCheckpointRequest request;
      request.set_parent("models/iris");
      request.set_create_model(true);
      auto* checkpoint = request.mutable_checkpoint();
      checkpoint->set_epoch(v - 1);
      if (v != 5) checkpoint->set_loss(v == 3 ? std::nan("") : 1.0 / v);
      if (v % 2 == 0) (*checkpoint->mutable_metrics())["accuracy"] = v;
      (*checkpoint->mutable_labels())["parity"] = v % 2 == 0 ? "even" : "od\"d";
      request.set_allow_empty(true);
      request.set_finish(true);
      auto saved = harness_.Save({request});
      ASSERT_TRUE(saved.ok()) << saved.status();
    }
  }

  // The versions that come, over all pages.
  absl::StatusOr<std::vector<int64_t>> List(const std::string& filter,
                                            const std::string& order = "",
                                            int page_size = 3) {
    v1::ListCheckpointsRequest request;
    request.set_parent("models/iris");
    request.set_filter(filter);
    request.set_order_by(order);
    request.set_page_size(page_size);
    std::vector<int64_t> versions;
    do {
      auto page = Call<v1::ListCheckpointsResponse>("ListCheckpoints", request);
      if (!page.ok()) return page.status();
      for (const auto& checkpoint : page->checkpoints()) {
        versions.push_back(checkpoint.version());
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return versions;
  }
};

TEST_F(FilterTest, FiltersTakeWhatFulfilsEveryCondition) {
  EXPECT_THAT(*List("epoch >= 5"), ElementsAre(6, 7, 8));
  EXPECT_THAT(*List("epoch>=5 AND version!=7"), ElementsAre(6, 8));
  EXPECT_THAT(*List("metrics.accuracy > 3 and loss < 0.2"), ElementsAre(6, 8));
  EXPECT_THAT(*List("labels.parity = \"even\" AND epoch <= 3"), ElementsAre(2, 4));
  EXPECT_THAT(*List("labels.parity = \"od\\\"d\"", "version desc"),
              ElementsAre(7, 5, 3, 1));
  EXPECT_THAT(*List("labels.parity != \"even\" AND epoch < 3"), ElementsAre(1, 3));
  EXPECT_THAT(*List("loss = 0.25"), ElementsAre(4));
  // Numbers that are NaN or not there fulfil nothing, not even that they differ.
  EXPECT_THAT(*List("loss != 7"), ElementsAre(1, 2, 4, 6, 7, 8));
  EXPECT_THAT(*List("step = 1"), ElementsAre());
}

TEST_F(FilterTest, ALabelThatDoesNotExistDiffersFromEveryText) {
  EXPECT_THAT(*List("labels.absent != \"x\" AND version < 4"), ElementsAre(1, 2, 3));
  EXPECT_THAT(*List("labels.absent = \"\""), ElementsAre());
}

TEST_F(FilterTest, QuotedNamesOfEveryKindFilterAndOrder) {
  for (const std::string name :
       {"mAP@0.5", "val loss", "größe", "a\"b\\c", "AND", " ", "x = 1"}) {
    v1::SaveCheckpointRequest request;
    request.set_parent("models/iris");
    (*request.mutable_checkpoint()->mutable_metrics())[name] = 5;
    (*request.mutable_checkpoint()->mutable_labels())[name] = name;
    request.set_allow_empty(true);
    request.set_finish(true);
    auto saved = harness_.Save({request});
    ASSERT_TRUE(saved.ok()) << saved.status();
    const std::string quoted = absl::StrCat(
        "\"", absl::StrReplaceAll(name, {{"\"", "\\\""}, {"\\", "\\\\"}}), "\"");
    const std::string metric = "metrics." + quoted, label = "labels." + quoted;
    EXPECT_THAT(*List(absl::StrCat(metric, " > 4.5 AND ", label, "=", quoted)),
                ElementsAre(saved->version()));
    EXPECT_THAT(*List(absl::StrCat(metric, " < 5")), ElementsAre());
    EXPECT_EQ(List("", metric + " desc")->front(), saved->version());
  }
}

TEST_F(FilterTest, IntegersBeyondTwoToThe53CompareExactly) {
  const int64_t large = (int64_t{1} << 53) + 1;
  for (const int64_t step : {large + 1, large, large - 1,
                             std::numeric_limits<int64_t>::max(), int64_t{-1} - large}) {
    v1::SaveCheckpointRequest request;
    request.set_parent("models/iris");
    request.mutable_checkpoint()->set_step(step);
    (*request.mutable_checkpoint()->mutable_metrics())["large"] =
        static_cast<double>(step);
    request.set_allow_empty(true);
    request.set_finish(true);
    ASSERT_TRUE(harness_.Save({request}).ok()) << step;
  }
  // Versions 9 to 13, by step: 13, 11, 10, 9, 12.
  EXPECT_THAT(*List(absl::StrCat("step = ", large)), ElementsAre(10));
  EXPECT_THAT(*List(absl::StrCat("step > ", large)), ElementsAre(9, 12));
  EXPECT_THAT(*List(absl::StrCat("step <= ", large)), ElementsAre(10, 11, 13));
  EXPECT_THAT(*List("step < 9223372036854775807 AND step > 9007199254740992.5"),
              ElementsAre(9, 10));
  EXPECT_THAT(*List("step = 9223372036854775807"), ElementsAre(12));
  EXPECT_THAT(*List("step < 9223372036854775808 AND step > 1e15"),
              ElementsAre(9, 10, 11, 12));
  EXPECT_THAT(*List("step != 1", "step"), ElementsAre(13, 11, 10, 9, 12));
  // A metric is a double, and so is what it is compared with.
  EXPECT_THAT(*List(absl::StrCat("metrics.large = ", large)), ElementsAre(10, 11));
}

TEST_F(FilterTest, OrdersByAFigureWithWhatLacksItLastEitherWay) {
  EXPECT_THAT(*List("", "loss"), ElementsAre(8, 7, 6, 4, 2, 1, 3, 5));
  EXPECT_THAT(*List("", "loss desc"), ElementsAre(1, 2, 4, 6, 7, 8, 5, 3));
  EXPECT_THAT(*List("epoch < 6", "metrics.accuracy desc", 2),
              ElementsAre(6, 4, 2, 5, 3, 1));
  EXPECT_THAT(*List("", "version desc"), ElementsAre(8, 7, 6, 5, 4, 3, 2, 1));
  EXPECT_THAT(*List("", "version"), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
}

TEST_F(FilterTest, WhatDoesNotParseIsRefusedAtItsPlace) {
  using Case = std::pair<const char*, const char*>;
  for (const auto& [filter, why] : {Case{"epoch", "at byte 5"},
                                    {"epoch >", "not a number"},
                                    {"epoch > x", "`x` is not a number"},
                                    {"epoch > nan", "not a number"},
                                    {"epoch > 1 OR epoch < 3", "expected AND"},
                                    {"epoch > 1 AND", "``"},
                                    {"colour = 1", "`colour`"},
                                    {"metrics. > 1", "metrics."},
                                    {"metrics.mAP@0.5 > 1", "goes in double quotes"},
                                    {"metrics.\"\" > 1", "metrics."},
                                    {"metrics.\"a > 1", "no end"},
                                    {"labels.a > \"x\"", "= and !="},
                                    {"labels.a = x", "double quotes"},
                                    {"labels.a = \"x", "no end"}}) {
    EXPECT_THAT(List(filter), FailsWith(kInvalid, "filter")) << filter;
    EXPECT_THAT(List(filter), FailsWith(kInvalid, why)) << filter;
  }
  EXPECT_THAT(List("", "colour"), FailsWith(kInvalid, "order_by"));
  EXPECT_THAT(List("", "loss down"), FailsWith(kInvalid, "order_by"));
  EXPECT_THAT(List("", "loss desc desc"), FailsWith(kInvalid, "order_by"));
  EXPECT_THAT(List("", "metrics.\"a"), FailsWith(kInvalid, "order_by"));
  EXPECT_THAT(List(std::string(5000, ' ') + "x"), FailsWith(kInvalid, "4096"));
}

}  // namespace
}  // namespace modelstore::server
