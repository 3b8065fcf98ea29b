// Models and checkpoints as an administrator sees them.
#include <chrono>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

class ModelsTest : public testing::Test {
 protected:
  template <typename Response>
  absl::StatusOr<Response> Call(const char* method,
                                const google::protobuf::Message& request) {
    return harness_.Call<Response>(absl::StrCat(kStore, method), request);
  }

  absl::StatusOr<v1::Model> Create(const std::string& id, v1::Model model = {}) {
    v1::CreateModelRequest request;
    request.set_model_id(id);
    *request.mutable_model() = std::move(model);
    return Call<v1::Model>("CreateModel", request);
  }

  // Versions 1 to `count` of a tiny model.
  void SaveVersions(const std::string& parent, int count) {
    for (int i = 0; i < count; ++i) {
      auto saved = harness_.SaveTensors(
          parent, {MakeTensor("w", v1::DTYPE_INT32, {1}, MakeBytes(4, i + 1))});
      ASSERT_TRUE(saved.ok()) << saved.status();
    }
  }

  Harness harness_;
};

TEST_F(ModelsTest, AModelReadsBackAsItWasCreated) {
  v1::Model wanted;
  wanted.set_description("flowers");
  (*wanted.mutable_labels())["team"] = "garden";
  wanted.mutable_retention_policy()->set_keep_latest(3);
  auto created = Create("iris", wanted);
  ASSERT_TRUE(created.ok()) << created.status();
  v1::GetModelRequest request;
  request.set_name("models/iris");
  auto got = Call<v1::Model>("GetModel", request);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->SerializeAsString(), created->SerializeAsString());
  EXPECT_EQ(got->name(), "models/iris");
  EXPECT_EQ(got->labels().at("team"), "garden");
  EXPECT_EQ(got->retention_policy().keep_latest(), 3);
  EXPECT_EQ(got->digest_algorithm(), v1::DIGEST_ALGORITHM_XXH3_128);
  EXPECT_FALSE(got->uid().empty());
  EXPECT_GT(got->create_time().seconds(), 0);
}

TEST_F(ModelsTest, ATakenOrMalformedIdIsRefusedByName) {
  ASSERT_TRUE(Create("iris").ok());
  EXPECT_THAT(Create("iris"), FailsWith(absl::StatusCode::kAlreadyExists, "models/iris"));
  EXPECT_THAT(Create("../etc"),
              FailsWith(absl::StatusCode::kInvalidArgument, "model_id"));
  EXPECT_THAT(Create(""), FailsWith(absl::StatusCode::kInvalidArgument, "model_id"));
  v1::Model sha;
  sha.set_digest_algorithm(v1::DIGEST_ALGORITHM_SHA256);
  EXPECT_THAT(Create("sha", sha), FailsWith(absl::StatusCode::kUnimplemented, "SHA256"));
  v1::Model wordy;
  wordy.set_description(std::string(4097, 'x'));
  EXPECT_THAT(Create("wordy", wordy),
              FailsWith(absl::StatusCode::kInvalidArgument, "model.description"));
}

TEST_F(ModelsTest, ValidateOnlyCreatesNothing) {
  v1::CreateModelRequest request;
  request.set_model_id("ghost");
  request.set_validate_only(true);
  ASSERT_TRUE(Call<v1::Model>("CreateModel", request).ok());
  v1::GetModelRequest get;
  get.set_name("models/ghost");
  EXPECT_THAT(Call<v1::Model>("GetModel", get),
              FailsWith(absl::StatusCode::kNotFound, "ghost"));
}

TEST_F(ModelsTest, ListsPageByPageAndRefuseForeignTokens) {
  for (const char* id : {"a1", "a2", "a3", "b1"}) ASSERT_TRUE(Create(id).ok());
  v1::ListModelsRequest request;
  request.set_page_size(2);
  request.set_prefix("a");
  auto page = Call<v1::ListModelsResponse>("ListModels", request);
  ASSERT_TRUE(page.ok()) << page.status();
  ASSERT_EQ(page->models_size(), 2);
  request.set_page_token(page->next_page_token());
  auto second = Call<v1::ListModelsResponse>("ListModels", request);
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_EQ(second->models_size(), 1);
  EXPECT_EQ(second->models(0).name(), "models/a3");
  EXPECT_EQ(second->next_page_token(), "");

  const auto invalid = absl::StatusCode::kInvalidArgument;
  request.set_prefix("b");
  EXPECT_THAT(Call<v1::ListModelsResponse>("ListModels", request),
              FailsWith(invalid, "page_token"));
  request.set_page_token("bm9uc2Vuc2U");
  EXPECT_THAT(Call<v1::ListModelsResponse>("ListModels", request),
              FailsWith(invalid, "page_token"));
  request.clear_page_token();
  request.set_page_size(-1);
  EXPECT_THAT(Call<v1::ListModelsResponse>("ListModels", request),
              FailsWith(invalid, "page_size"));
}

TEST_F(ModelsTest, APageOfLargeModelsEndsBeforeFourMebibytes) {
  v1::Model large;
  large.set_description(std::string(4096, 'd'));
  for (int i = 0; i < 64; ++i) {
    (*large.mutable_labels())[absl::StrCat(std::string(250, 'k'), i)] =
        std::string(256, 'v');
  }
  for (int i = 0; i < 150; ++i)
    ASSERT_TRUE(Create(absl::StrCat("m", 1000 + i), large).ok());
  v1::ListModelsRequest request;
  request.set_page_size(1000);
  int seen = 0;
  int pages = 0;
  do {
    auto page = Call<v1::ListModelsResponse>("ListModels", request);
    ASSERT_TRUE(page.ok()) << page.status();
    EXPECT_LE(page->ByteSizeLong(), size_t{4} << 20);
    for (const auto& model : page->models()) {
      EXPECT_EQ(model.name(), absl::StrCat("models/m", 1000 + seen++));
    }
    request.set_page_token(page->next_page_token());
    ++pages;
  } while (!request.page_token().empty() && pages < 20);
  EXPECT_EQ(seen, 150);
  EXPECT_GT(pages, 1);
}

TEST_F(ModelsTest, DeletingAModelWithCheckpointsNeedsForce) {
  SaveVersions("models/m", 2);
  v1::DeleteModelRequest request;
  request.set_name("models/m");
  EXPECT_THAT(Call<v1::DeleteModelResponse>("DeleteModel", request),
              FailsWith(absl::StatusCode::kFailedPrecondition, ""));
  request.set_force(true);
  request.set_etag("stale");
  EXPECT_THAT(Call<v1::DeleteModelResponse>("DeleteModel", request),
              FailsWith(absl::StatusCode::kAborted, "etag"));
  request.clear_etag();
  request.set_validate_only(true);
  auto would = Call<v1::DeleteModelResponse>("DeleteModel", request);
  ASSERT_TRUE(would.ok()) << would.status();
  EXPECT_EQ(would->deleted_checkpoints(), 2);
  request.set_validate_only(false);
  auto deleted = Call<v1::DeleteModelResponse>("DeleteModel", request);
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->deleted_checkpoints(), 2);
  EXPECT_THAT(Call<v1::DeleteModelResponse>("DeleteModel", request),
              FailsWith(absl::StatusCode::kNotFound, "models/m"));
}

TEST_F(ModelsTest, ARecreatedModelHasAnotherUidAndEtag) {
  auto first = Create("m");
  ASSERT_TRUE(first.ok());
  v1::DeleteModelRequest request;
  request.set_name("models/m");
  request.set_etag(first->etag());
  ASSERT_TRUE(Call<v1::DeleteModelResponse>("DeleteModel", request).ok());
  auto second = Create("m");
  ASSERT_TRUE(second.ok());
  EXPECT_NE(first->uid(), second->uid());
  EXPECT_THAT(Call<v1::DeleteModelResponse>("DeleteModel", request),
              FailsWith(absl::StatusCode::kAborted, "etag"));
}

TEST_F(ModelsTest, CheckpointsAreListedInEitherOrder) {
  SaveVersions("models/m", 5);
  v1::ListCheckpointsRequest request;
  request.set_parent("models/m");
  request.set_page_size(2);
  request.set_order_by("version desc");
  std::vector<int64_t> versions;
  do {
    auto page = Call<v1::ListCheckpointsResponse>("ListCheckpoints", request);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& c : page->checkpoints()) versions.push_back(c.version());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && versions.size() < 10);
  EXPECT_THAT(versions, testing::ElementsAre(5, 4, 3, 2, 1));
}

TEST_F(ModelsTest, OnlyANumberNamesWhatIsDeleted) {
  SaveVersions("models/m", 2);
  v1::DeleteCheckpointRequest request;
  request.set_name("models/m/checkpoints/latest");
  EXPECT_THAT(Call<v1::DeleteCheckpointResponse>("DeleteCheckpoint", request),
              FailsWith(absl::StatusCode::kInvalidArgument, "latest"));
  request.set_name("models/m/checkpoints/2");
  ASSERT_TRUE(Call<v1::DeleteCheckpointResponse>("DeleteCheckpoint", request).ok());
  SaveVersions("models/m", 1);
  v1::GetCheckpointRequest latest;
  latest.set_name("models/m/checkpoints/latest");
  auto got = Call<v1::Checkpoint>("GetCheckpoint", latest);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->version(), 3) << "a number is never given twice";
}

TEST_F(ModelsTest, ServerInfoReportsTheLimitsOfTheContract) {
  auto info = Call<v1::ServerInfo>("GetServerInfo", v1::GetServerInfoRequest());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->limits().max_chunk_bytes(), 4 << 20);
  EXPECT_EQ(info->limits().max_tensors_per_checkpoint(), 262'144);
  EXPECT_FALSE(info->version().empty());
}

TEST_F(ModelsTest, StatsCountWhatIsStored) {
  SaveVersions("models/m", 2);
  auto stats = Call<v1::Stats>("GetStats", v1::GetStatsRequest());
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->model_count(), 1);
  EXPECT_EQ(stats->checkpoint_count(), 2);
}

TEST_F(ModelsTest, EveryMethodOfTheContractIsBuilt) {
  for (const auto* service : ContractServices()) {
    for (int i = 0; i < service->method_count(); ++i) {
      const auto& method = *service->method(i);
      const std::string name =
          absl::StrCat("/", service->full_name(), "/", method.name());
      ASSERT_TRUE(harness_.service().Find(name).has_value()) << name;
      absl::Status status;
      switch (*harness_.service().Find(name)) {
        case MethodKind::kUnary:
          status = harness_.service().Call(name, "").status();
          break;
        case MethodKind::kInbound:
          status = harness_.service().OpenInbound(name).status();
          break;
        case MethodKind::kOutbound:
          status = harness_.service().OpenOutbound(name, "").status();
          break;
      }
      EXPECT_FALSE(absl::IsUnimplemented(status)) << name << ": " << status;
    }
  }
  EXPECT_FALSE(harness_.service().Find("/modelstore.v1.ModelStore/Nonsense").has_value());
}

TEST_F(ModelsTest, ACollectionReportsItsResultOnce) {
  SaveVersions("models/m", 1);
  auto responses = harness_.Stream<v1::CollectGarbageResponse>(
      absl::StrCat(kStore, "CollectGarbage"), v1::CollectGarbageRequest());
  ASSERT_TRUE(responses.ok()) << responses.status();
  ASSERT_GE(responses->size(), 2u);
  EXPECT_TRUE(responses->back().has_result());
  responses->pop_back();
  for (const auto& response : *responses) EXPECT_TRUE(response.has_progress());
}

TEST_F(ModelsTest, ACollectionThatWaitsForAnotherHoldsNoThread) {
  // Large enough to be a pack, which a collection tells.
  const std::string bytes = MakeBytes(2 << 20, 1);
  ASSERT_TRUE(
      harness_
          .SaveTensors("models/m", {MakeTensor("w", v1::DTYPE_UINT8, {2 << 20}, bytes)})
          .ok());
  std::promise<void> begun, release;
  std::shared_future<void> released = release.get_future().share();
  auto running = std::async(std::launch::async, [&] {
    bool first = true;
    auto result =
        harness_.store().maintenance().CollectGarbage(false, [&](int64_t, int64_t) {
          if (std::exchange(first, false)) begun.set_value();
          released.wait_for(std::chrono::seconds(20));
          return true;
        });
    EXPECT_TRUE(result.ok()) << result.status();
  });
  EXPECT_EQ(begun.get_future().wait_for(std::chrono::seconds(20)),
            std::future_status::ready);
  const auto open = [&] {
    return *harness_.service().OpenOutbound(absl::StrCat(kStore, "CollectGarbage"), "");
  };
  auto first = open(), second = open();
  for (OutboundSession* session : {first.get(), second.get(), first.get()}) {
    auto message = session->Next();
    ASSERT_TRUE(message.ok()) << message.status();
    ASSERT_TRUE(message->has_value());
    EXPECT_TRUE((*message)->again_after.has_value());
  }
  // Nor does one that is cancelled wait, in storage or for its turn.
  const absl::Time begin = absl::Now();
  first.reset();
  second.reset();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  first = open();
  EXPECT_EQ(released.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  release.set_value();
  running.get();
  auto third = open();
  for (OutboundSession* session : {first.get(), third.get()}) {
    bool told = false;
    for (int i = 0; i < 2000 && !told; ++i) {
      auto message = session->Next();
      ASSERT_TRUE(message.ok()) << message.status();
      ASSERT_TRUE(message->has_value());
      if ((*message)->again_after) {
        absl::SleepFor(*(*message)->again_after);
        continue;
      }
      v1::CollectGarbageResponse response;
      ASSERT_TRUE(response.ParseFromString((*message)->head));
      told = response.has_result();
    }
    EXPECT_TRUE(told);
  }
}

}  // namespace
}  // namespace modelstore::server
