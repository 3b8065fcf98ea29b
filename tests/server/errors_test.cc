// The reasons of errors, as programs see them: by google.rpc.ErrorInfo, without their
// text.
#include "proto/contract/errors.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/status_codec.h"
#include "storage/catalog.h"
#include "storage/keys.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::IsSupersetOf;
using Metadata = std::vector<std::pair<std::string, std::string>>;

// What arrives at the client.
MATCHER_P2(FailsFor, reason, metadata, std::string(ReasonName(reason))) {
  const absl::Status arrived = FromGrpcStatus(ToGrpcStatus(arg.status()));
  *result_listener << arrived;
  const auto detail = ErrorDetailOf(arrived);
  if (!detail.has_value() || detail->reason != ReasonName(reason)) return false;
  if (arrived.code() != CodeOf(reason)) return false;
  const Metadata has(detail->metadata.begin(), detail->metadata.end());
  return ExplainMatchResult(IsSupersetOf(metadata), has, result_listener);
}

class ErrorsTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 3; ++i) Save(i + 1);
  }

  void Save(int seed) {
    const auto saved = harness_.SaveTensors(
        "models/m", {MakeTensor("w", v1::DTYPE_INT32, {1}, MakeBytes(4, seed))});
    ASSERT_TRUE(saved.ok()) << saved.status();
  }
  template <typename Response>
  absl::StatusOr<Response> Call(const char* method,
                                const google::protobuf::Message& request) {
    return harness_.Call<Response>(absl::StrCat(kStore, method), request);
  }
  template <typename Response>
  absl::StatusOr<Response> Transfer(const char* method,
                                    const google::protobuf::Message& request) {
    return harness_.Call<Response>(absl::StrCat(kTransfer, method), request);
  }
  absl::StatusOr<v1::Checkpoint> Get(const std::string& version) {
    v1::GetCheckpointRequest request;
    request.set_name("models/m/checkpoints/" + version);
    return Call<v1::Checkpoint>("GetCheckpoint", request);
  }
  absl::StatusOr<v1::Alias> Set(const std::string& alias, int64_t version,
                                int64_t expected = 0,
                                const std::string& request_id = "") {
    v1::SetAliasRequest request;
    request.set_name("models/m/aliases/" + alias);
    request.set_version(version);
    if (expected == 0) {
      request.set_create_only(true);
    } else {
      request.set_expected_version(expected);
    }
    request.set_request_id(request_id);
    return Call<v1::Alias>("SetAlias", request);
  }
  absl::StatusOr<v1::Lease> Acquire(const std::string& version,
                                    const std::string& holder) {
    v1::AcquireLeaseRequest request;
    request.set_checkpoint("models/m/checkpoints/" + version);
    request.set_holder(holder);
    request.mutable_time_to_live()->set_seconds(60);
    return Call<v1::Lease>("AcquireLease", request);
  }
  absl::StatusOr<v1::DeleteModelResponse> DeleteModel(bool force) {
    v1::DeleteModelRequest request;
    request.set_name("models/m");
    request.set_force(force);
    return Call<v1::DeleteModelResponse>("DeleteModel", request);
  }
  absl::StatusOr<v1::Upload> CreateUpload(const std::string& request_id, int epoch) {
    v1::CreateUploadRequest request;
    request.set_parent("models/m");
    request.set_request_id(request_id);
    request.mutable_upload()->set_contribution_count(2);
    request.mutable_upload()->mutable_checkpoint()->set_epoch(epoch);
    return Transfer<v1::Upload>("CreateUpload", request);
  }
  // A contribution without tensors.
  absl::StatusOr<v1::UploadChunksResponse> Contribute(const v1::Upload& upload,
                                                      int contribution) {
    v1::UploadChunksRequest request;
    request.set_upload(upload.name());
    request.set_contribution(contribution);
    request.set_manifest_complete(true);
    request.mutable_manifest();
    return harness_.Upload({request});
  }
  absl::StatusOr<v1::Checkpoint> Commit(const v1::Upload& upload, int64_t expected = 3) {
    v1::CommitUploadRequest request;
    request.set_name(upload.name());
    request.set_allow_empty(true);
    request.set_expected_latest_version(expected);
    return Transfer<v1::Checkpoint>("CommitUpload", request);
  }

  Harness harness_;
};

TEST_F(ErrorsTest, AnInvalidFieldIsNamed) {
  v1::GetCheckpointRequest request;
  request.set_name("models/m/versions/1");
  EXPECT_THAT(Call<v1::Checkpoint>("GetCheckpoint", request),
              FailsFor(ERROR_REASON_INVALID_FIELD, (Metadata{{"field", "name"}})));
}

TEST_F(ErrorsTest, AMessageThatDoesNotParseIsAnInvalidArgument) {
  EXPECT_THAT(harness_.service().Call(absl::StrCat(kStore, "GetModel"), "\xff\xff"),
              FailsFor(ERROR_REASON_INVALID_ARGUMENT, Metadata()));
}

TEST_F(ErrorsTest, WhatDoesNotExistIsNamedWithItsType) {
  EXPECT_THAT(Get("9"),
              FailsFor(ERROR_REASON_NOT_FOUND,
                       (Metadata{{"resource_type", "checkpoint"},
                                 {"resource_name", "models/m/checkpoints/9"}})));
  EXPECT_THAT(Get("production"),
              FailsFor(ERROR_REASON_NOT_FOUND,
                       (Metadata{{"resource_type", "alias"},
                                 {"resource_name", "models/m/aliases/production"}})));
}

TEST_F(ErrorsTest, AModelThatExistsIsNamed) {
  v1::CreateModelRequest request;
  request.set_model_id("m");
  EXPECT_THAT(
      Call<v1::Model>("CreateModel", request),
      FailsFor(ERROR_REASON_ALREADY_EXISTS,
               (Metadata{{"resource_type", "model"}, {"resource_name", "models/m"}})));
}

TEST_F(ErrorsTest, ARefusedDeletionNamesAllThatHoldsTheVersion) {
  ASSERT_TRUE(Set("production", 2).ok());
  ASSERT_TRUE(Set("stable", 2).ok());
  ASSERT_TRUE(Acquire("2", "job@host:7").ok());
  v1::UpdateCheckpointRequest pin;
  pin.mutable_checkpoint()->set_name("models/m/checkpoints/2");
  pin.mutable_checkpoint()->set_pinned(true);
  pin.mutable_update_mask()->add_paths("pinned");
  ASSERT_TRUE(Call<v1::Checkpoint>("UpdateCheckpoint", pin).ok());
  v1::DeleteCheckpointRequest request;
  request.set_name("models/m/checkpoints/2");
  EXPECT_THAT(
      Call<v1::DeleteCheckpointResponse>("DeleteCheckpoint", request),
      FailsFor(ERROR_REASON_HELD, (Metadata{{"resource_name", "models/m/checkpoints/2"},
                                            {"aliases", "2:production,2:stable"},
                                            {"pins", "2"},
                                            {"leases", "2:job@host:7"},
                                            {"holder_count", "4"}})));
}

TEST_F(ErrorsTest, ARefusedDeletionOfAModelNamesTheHoldersOfEachVersion) {
  ASSERT_TRUE(Set("production", 2).ok());
  ASSERT_TRUE(Acquire("1", "a").ok());
  ASSERT_TRUE(Acquire("3", "b").ok());
  EXPECT_THAT(DeleteModel(true),
              FailsFor(ERROR_REASON_HELD, (Metadata{{"resource_name", "models/m"},
                                                    {"aliases", "2:production"},
                                                    {"pins", ""},
                                                    {"leases", "1:a,3:b"},
                                                    {"holder_count", "3"}})));
}

TEST_F(ErrorsTest, ManyHoldersAreCountedAndTheListHoldsWholeEntries) {
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Acquire("1", absl::StrCat("the-worker-of-rank-", 100 + i)).ok());
  }
  const auto refused = DeleteModel(true);
  EXPECT_THAT(refused, FailsFor(ERROR_REASON_HELD, (Metadata{{"holder_count", "100"}})));
  const auto detail = ErrorDetailOf(FromGrpcStatus(ToGrpcStatus(refused.status())));
  ASSERT_TRUE(detail.has_value());
  const std::string& leases = detail->metadata.at("leases");
  EXPECT_GT(leases.size(), 500u);
  // Each of the same length, commas between.
  const size_t entry = std::string("1:the-worker-of-rank-100").size();
  EXPECT_EQ((leases.size() + 1) % (entry + 1), 0u) << leases;
}

TEST_F(ErrorsTest, AModelWithCheckpointsReportsHowMany) {
  EXPECT_THAT(DeleteModel(false),
              FailsFor(ERROR_REASON_NOT_EMPTY, (Metadata{{"resource_name", "models/m"},
                                                         {"checkpoint_count", "3"}})));
}

TEST_F(ErrorsTest, AStaleEtagNamesTheResource) {
  v1::GetModelRequest get;
  get.set_name("models/m");
  const auto model = Call<v1::Model>("GetModel", get);
  ASSERT_TRUE(model.ok()) << model.status();
  Save(4);
  v1::DeleteModelRequest request;
  request.set_name("models/m");
  request.set_force(true);
  request.set_etag(model->etag());
  EXPECT_THAT(
      Call<v1::DeleteModelResponse>("DeleteModel", request),
      FailsFor(ERROR_REASON_STALE_ETAG, (Metadata{{"resource_name", "models/m"}})));
}

TEST_F(ErrorsTest, ALostRaceReportsBothVersions) {
  ASSERT_TRUE(Set("production", 2).ok());
  EXPECT_THAT(Set("production", 3, 1),
              FailsFor(ERROR_REASON_LOST_RACE,
                       (Metadata{{"resource_name", "models/m/aliases/production"},
                                 {"expected_version", "1"},
                                 {"actual_version", "2"}})));
  EXPECT_THAT(Set("production", 3),
              FailsFor(ERROR_REASON_LOST_RACE,
                       (Metadata{{"expected_version", ""}, {"actual_version", "2"}})));
  const auto upload = CreateUpload("", 1);
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE(Contribute(*upload, 0).ok());
  ASSERT_TRUE(Contribute(*upload, 1).ok());
  EXPECT_THAT(Commit(*upload, 7),
              FailsFor(ERROR_REASON_LOST_RACE, (Metadata{{"resource_name", "models/m"},
                                                         {"expected_version", "7"},
                                                         {"actual_version", "3"}})));
}

TEST_F(ErrorsTest, AReusedRequestIdIsNamed) {
  const Metadata metadata = {{"field", "request_id"}, {"request_id", "r"}};
  ASSERT_TRUE(Set("production", 2, 0, "r").ok());
  EXPECT_THAT(Set("stable", 2, 0, "r"),
              FailsFor(ERROR_REASON_REQUEST_ID_REUSED, metadata));
  ASSERT_TRUE(CreateUpload("r", 1).ok());
  EXPECT_THAT(CreateUpload("r", 2), FailsFor(ERROR_REASON_REQUEST_ID_REUSED, metadata));
}

TEST_F(ErrorsTest, AnIncompleteUploadReportsHowMuchIsMissing) {
  const auto upload = CreateUpload("", 1);
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE(Contribute(*upload, 1).ok());
  EXPECT_THAT(Commit(*upload),
              FailsFor(ERROR_REASON_INCOMPLETE, (Metadata{{"missing_count", "1"}})));
}

TEST_F(ErrorsTest, ACommittedUploadReportsItsVersion) {
  const auto upload = CreateUpload("", 1);
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE(Contribute(*upload, 0).ok());
  ASSERT_TRUE(Contribute(*upload, 1).ok());
  ASSERT_TRUE(Commit(*upload).ok());
  EXPECT_THAT(Contribute(*upload, 0),
              FailsFor(ERROR_REASON_UPLOAD_COMMITTED,
                       (Metadata{{"resource_name", upload->name()}, {"version", "4"}})));
}

// One that is well-formed, of a plan that is no longer kept.
TEST_F(ErrorsTest, AnUnknownResumeTokenIsNotAnyPrecondition) {
  EXPECT_THAT(harness_.store().reads().Reopen("none"),
              FailsFor(ERROR_REASON_UNKNOWN_RESUME_TOKEN, Metadata()));
}

TEST_F(ErrorsTest, ALimitIsNamedWithItsValue) {
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(Set(absl::StrCat("a", i), 1).ok());
  EXPECT_THAT(Set("one-more", 1),
              FailsFor(ERROR_REASON_OVER_LIMIT,
                       (Metadata{{"limit", "aliases"}, {"maximum", "1000"}})));
}

TEST_F(ErrorsTest, AMetricThatNoVersionHasIsNamed) {
  v1::PruneCheckpointsRequest request;
  request.set_parent("models/m");
  request.mutable_policy()->set_keep_best(1);
  request.mutable_policy()->set_metric("acuracy");
  request.mutable_policy()->set_prune_unranked(true);
  EXPECT_THAT(harness_.Stream<v1::PruneCheckpointsResponse>(
                  absl::StrCat(kStore, "PruneCheckpoints"), request),
              FailsFor(ERROR_REASON_METRIC_MISSING, (Metadata{{"metric", "acuracy"}})));
}

TEST_F(ErrorsTest, DamagedBytesNameTheirTensor) {
  const auto saved = harness_.SaveTensors(
      "models/large",
      {MakeTensor("w", v1::DTYPE_UINT8, {2 << 20}, MakeBytes(2 << 20, 9))});
  ASSERT_TRUE(saved.ok()) << saved.status();
  harness_.Damage("large", 1, "w", 0);
  v1::LoadCheckpointRequest request;
  request.set_name("models/large/checkpoints/1");
  EXPECT_THAT(
      harness_.Load(request),
      FailsFor(ERROR_REASON_DATA_DAMAGED,
               (Metadata{{"resource_type", "tensor"},
                         {"resource_name", "models/large/checkpoints/1/model:w"}})));
}

TEST_F(ErrorsTest, StoredBytesThatCannotBeReadNameWhatTheyBelongTo) {
  const auto source = harness_.store().reads().Open("m", 1);
  ASSERT_TRUE(source.ok()) << source.status();
  storage::SaveRequest request;
  request.model_id = "m";
  request.metadata.set_architecture("\x01\xff");
  auto save = harness_.store().saves().StartDerived(request, {*source});
  ASSERT_TRUE(save.ok()) << save.status();
  storage::ManifestPart manifest = (*source)->manifest();
  auto* section = manifest.add_sections();
  section->set_name("extra");
  section->set_value("\x01\xff");
  const auto made = (*save)->Commit(manifest, {});
  ASSERT_TRUE(made.ok()) << made.status();
  v1::GetCheckpointRequest full;
  full.set_name("models/m/checkpoints/4");
  full.set_view(v1::CHECKPOINT_VIEW_FULL);
  EXPECT_THAT(Call<v1::Checkpoint>("GetCheckpoint", full),
              FailsFor(ERROR_REASON_DATA_DAMAGED,
                       (Metadata{{"resource_type", "checkpoint"},
                                 {"resource_name", "models/m/checkpoints/4"}})));
  v1::GetSectionRequest get;
  get.set_parent("models/m/checkpoints/4");
  get.set_section("extra");
  EXPECT_THAT(
      Call<v1::Section>("GetSection", get),
      FailsFor(ERROR_REASON_DATA_DAMAGED,
               (Metadata{{"resource_type", "section"},
                         {"resource_name", "models/m/checkpoints/4/sections/extra"}})));
}

TEST_F(ErrorsTest, ADamagedManifestNamesItsCheckpoint) {
  const auto record = harness_.store().checkpoints().Get("m", 2);
  ASSERT_TRUE(record.ok()) << record.status();
  const storage::Engine engine =
      storage::OpenMemoryEngine(std::make_shared<storage::MemoryDisk>(harness_.disk()));
  storage::CatalogBatch batch;
  batch.Put(storage::Space::kManifests,
            storage::keys::ManifestPage(record->manifest_id(), 0), "\xff");
  ASSERT_TRUE(engine.catalog->Write(batch, storage::Durability::kDurable).ok());
  v1::LoadCheckpointRequest load;
  load.set_name("models/m/checkpoints/2");
  EXPECT_THAT(harness_.Load(load),
              FailsFor(ERROR_REASON_DATA_DAMAGED,
                       (Metadata{{"resource_type", "checkpoint"},
                                 {"resource_name", "models/m/checkpoints/2"}})));
  v1::ListTensorsRequest list;
  list.set_parent("models/m/checkpoints/2");
  EXPECT_THAT(
      Call<v1::ListTensorsResponse>("ListTensors", list),
      FailsFor(ERROR_REASON_DATA_DAMAGED, (Metadata{{"resource_type", "record"},
                                                    {"resource_name", "ManifestPage"}})));
}

TEST_F(ErrorsTest, AFieldOfAnEditIsNamedByItsPlaceInTheList) {
  v1::ModifyCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  request.add_edits()->mutable_cast()->set_dtype(v1::DTYPE_INT32);
  const auto refused = harness_.Stream<v1::ModifyCheckpointResponse>(
      absl::StrCat(kStore, "ModifyCheckpoint"), request);
  const auto detail = ErrorDetailOf(FromGrpcStatus(ToGrpcStatus(refused.status())));
  ASSERT_TRUE(detail.has_value()) << refused.status();
  EXPECT_EQ(detail->reason, "INVALID_FIELD");
  EXPECT_THAT(detail->metadata.at("field"), testing::StartsWith("edits[0]"));
}

TEST_F(ErrorsTest, AMethodThatIsNotBuiltIsUnimplemented) {
  EXPECT_THAT(harness_.service().Call(absl::StrCat(kStore, "NoSuchMethod"), ""),
              FailsFor(ERROR_REASON_UNIMPLEMENTED, Metadata()));
}

}  // namespace
}  // namespace modelstore::server
