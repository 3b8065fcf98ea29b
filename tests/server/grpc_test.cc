// Every RPC over a real connection, by the generated stubs.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "proto/contract/limits.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

class GrpcTest : public testing::Test {
 protected:
  GrpcHarness harness_;
};

TEST_F(GrpcTest, AttachmentsOfTheLargestSizePassThroughStubsWithDefaultLimits) {
  const auto channel = harness_.NewChannel();
  const auto transfer = v1::CheckpointTransfer::NewStub(channel);
  const auto store = v1::ModelStore::NewStub(channel);
  // All that a checkpoint may have, one in a message.
  std::vector<std::string> saved;
  {
    Context context;
    v1::Checkpoint checkpoint;
    auto writer = transfer->SaveCheckpoint(&context, &checkpoint);
    for (int i = 0; i < kMaxTotalAttachmentBytes / kMaxAttachmentBytes; ++i) {
      saved.push_back(MakeBytes(kMaxAttachmentBytes, i));
      v1::SaveCheckpointRequest request;
      if (i == 0) {
        request.set_parent("models/m");
        request.set_create_model(true);
      }
      v1::Attachment* attachment = request.mutable_manifest()->add_attachments();
      attachment->set_name(absl::StrCat("a", i));
      attachment->set_data(saved.back());
      ASSERT_TRUE(writer->Write(request)) << i;
    }
    v1::SaveCheckpointRequest last;
    last.set_finish(true);
    ASSERT_TRUE(writer->Write(last));
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(checkpoint.attachments_size(), static_cast<int>(saved.size()));
  }
  std::string read;
  v1::GetAttachmentResponse part;
  do {
    Context context;
    v1::GetAttachmentRequest request;
    request.set_parent("models/m/checkpoints/1");
    request.set_attachment("a3");
    request.set_offset(part.next_offset());
    ASSERT_TRUE(store->GetAttachment(&context, request, &part).ok());
    read += part.data();
  } while (part.next_offset() > 0);
  EXPECT_TRUE(read == saved[3]);
}

TEST_F(GrpcTest, AModelsWholeLifePassesThroughTheGeneratedStubs) {
  Context c1;
  v1::CreateModelRequest create;
  create.set_model_id("m");
  v1::Model model;
  ASSERT_TRUE(harness_.store().CreateModel(&c1, create, &model).ok());
  Context c2;
  v1::GetModelRequest get;
  get.set_name("models/m");
  ASSERT_TRUE(harness_.store().GetModel(&c2, get, &model).ok());
  harness_.SaveModel("models/m", 2);
  Context c3;
  v1::ListModelsResponse models;
  ASSERT_TRUE(harness_.store().ListModels(&c3, {}, &models).ok());
  EXPECT_EQ(models.models(0).latest_version(), 1);
  Context c4;
  v1::GetCheckpointRequest get_checkpoint;
  get_checkpoint.set_name("models/m/checkpoints/latest");
  v1::Checkpoint checkpoint;
  ASSERT_TRUE(harness_.store().GetCheckpoint(&c4, get_checkpoint, &checkpoint).ok());
  EXPECT_EQ(checkpoint.logical_bytes(), 2 << 20);
  Context c5;
  v1::ListCheckpointsRequest list;
  list.set_parent("models/m");
  v1::ListCheckpointsResponse checkpoints;
  ASSERT_TRUE(harness_.store().ListCheckpoints(&c5, list, &checkpoints).ok());
  EXPECT_EQ(checkpoints.checkpoints_size(), 1);
  Context c6;
  v1::ListTensorsRequest list_tensors;
  list_tensors.set_parent("models/m/checkpoints/1");
  v1::ListTensorsResponse tensors;
  ASSERT_TRUE(harness_.store().ListTensors(&c6, list_tensors, &tensors).ok());
  EXPECT_EQ(tensors.tensors(0).key(), "w");
  Context c7;
  v1::GetSectionRequest get_section;
  get_section.set_parent("models/m/checkpoints/1");
  get_section.set_section("model");
  v1::Section section;
  EXPECT_TRUE(harness_.store().GetSection(&c7, get_section, &section).ok());
  Context c8;
  v1::ServerInfo info;
  EXPECT_TRUE(harness_.store().GetServerInfo(&c8, {}, &info).ok());
  EXPECT_EQ(harness_.Stats().checkpoint_count(), 1);

  v1::LoadCheckpointRequest load;
  load.set_name("models/m/checkpoints/latest");
  Loaded loaded;
  ASSERT_TRUE(harness_.Load(load, &loaded).ok());
  EXPECT_TRUE(loaded.bytes == MakeBytes(2 << 20, 17));

  Context c9;
  v1::DeleteCheckpointRequest delete_checkpoint;
  delete_checkpoint.set_name("models/m/checkpoints/1");
  v1::DeleteCheckpointResponse deleted;
  EXPECT_TRUE(harness_.store().DeleteCheckpoint(&c9, delete_checkpoint, &deleted).ok());
  Context c10;
  auto collect = harness_.store().CollectGarbage(&c10, {});
  v1::CollectGarbageResponse response;
  bool has_result = false;
  while (collect->Read(&response)) has_result = response.has_result();
  EXPECT_TRUE(collect->Finish().ok());
  EXPECT_TRUE(has_result);
  Context c11;
  v1::DeleteModelRequest delete_model;
  delete_model.set_name("models/m");
  v1::DeleteModelResponse model_deleted;
  EXPECT_TRUE(harness_.store().DeleteModel(&c11, delete_model, &model_deleted).ok());
}

TEST_F(GrpcTest, AnUploadsWholeLifePassesThroughTheGeneratedStubs) {
  const TestTensor tensor =
      MakeTensor("w", v1::DTYPE_UINT8, {3 << 20}, MakeBytes(3 << 20, 1), 1 << 20);
  Context c1;
  v1::CreateUploadRequest create;
  create.set_parent("models/m");
  create.set_create_model(true);
  v1::Upload upload;
  ASSERT_TRUE(harness_.transfer().CreateUpload(&c1, create, &upload).ok());
  Context c2;
  v1::FindMissingChunksRequest ask;
  ask.set_name(upload.name());
  ask.set_digests(tensor.tensor.pieces(0).chunk_digests());
  v1::FindMissingChunksResponse missing;
  ASSERT_TRUE(harness_.transfer().FindMissingChunks(&c2, ask, &missing).ok());
  EXPECT_EQ(missing.missing_size(), 3);

  Context c3;
  v1::UploadChunksResponse received;
  auto stream = harness_.transfer().UploadChunks(&c3, &received);
  v1::UploadChunksRequest request;
  request.set_upload(upload.name());
  *request.mutable_manifest()->add_tensors() = tensor.tensor;
  request.set_manifest_complete(true);
  ASSERT_TRUE(stream->Write(request));
  for (const auto& chunk : tensor.chunks) {
    v1::UploadChunksRequest message;
    AddChunk(&message, chunk);
    ASSERT_TRUE(stream->Write(message));
  }
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(received.received_bytes(), 3 << 20);

  Context c4;
  v1::GetUploadRequest get;
  get.set_name(upload.name());
  ASSERT_TRUE(harness_.transfer().GetUpload(&c4, get, &upload).ok());
  EXPECT_EQ(upload.sealed_bytes(), 3 << 20);
  Context c5;
  v1::ListUploadsRequest list;
  list.set_parent("models/m");
  v1::ListUploadsResponse uploads;
  ASSERT_TRUE(harness_.store().ListUploads(&c5, list, &uploads).ok());
  EXPECT_EQ(uploads.uploads_size(), 1);
  Context c6;
  v1::CommitUploadRequest commit;
  commit.set_name(upload.name());
  v1::Checkpoint checkpoint;
  ASSERT_TRUE(harness_.transfer().CommitUpload(&c6, commit, &checkpoint).ok());
  EXPECT_EQ(checkpoint.name(), "models/m/checkpoints/1");
  Context c7;
  v1::DeleteUploadRequest forget;
  forget.set_name(upload.name());
  google::protobuf::Empty empty;
  EXPECT_TRUE(harness_.transfer().DeleteUpload(&c7, forget, &empty).ok());
}

TEST_F(GrpcTest, RefusalsCarryTheirDetails) {
  Context context;
  v1::CreateModelRequest request;
  request.set_model_id("no spaces");
  v1::Model model;
  const grpc::Status status = harness_.store().CreateModel(&context, request, &model);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "INVALID_FIELD");
  google::rpc::BadRequest bad;
  ASSERT_TRUE(details.details(1).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "model_id");
}

TEST_F(GrpcTest, EveryRpcAnswersWithARequestIdTheClientsOwnIfItSentOne) {
  Context own;
  own.AddMetadata("x-request-id", "trace-42");
  v1::ServerInfo info;
  ASSERT_TRUE(harness_.store().GetServerInfo(&own, {}, &info).ok());
  auto found = own.GetServerTrailingMetadata().find("x-request-id");
  ASSERT_NE(found, own.GetServerTrailingMetadata().end());
  EXPECT_EQ(std::string(found->second.data(), found->second.size()), "trace-42");
  Context given;
  given.AddMetadata("x-request-id", std::string(500, 'x'));
  ASSERT_TRUE(harness_.store().GetServerInfo(&given, {}, &info).ok());
  found = given.GetServerTrailingMetadata().find("x-request-id");
  ASSERT_NE(found, given.GetServerTrailingMetadata().end());
  EXPECT_EQ(found->second.size(), 16u);
}

TEST_F(GrpcTest, AResumedLoadSharesItsBytesAmongStreams) {
  harness_.SaveModel("models/m", 5);
  v1::LoadCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  request.set_plan_only(true);
  Loaded plan;
  ASSERT_TRUE(harness_.Load(request, &plan).ok());
  std::string all;
  const int64_t total = plan.plan.total_bytes();
  for (int part = 0; part < 3; ++part) {
    v1::LoadCheckpointRequest resumed;
    resumed.set_name(request.name());
    resumed.set_resume_token(plan.plan.resume_token());
    resumed.set_omit_plan(true);
    resumed.set_start_position(total * part / 3);
    resumed.set_end_position(total * (part + 1) / 3);
    Loaded loaded;
    ASSERT_TRUE(harness_.Load(resumed, &loaded).ok());
    all += loaded.bytes;
  }
  EXPECT_TRUE(all == MakeBytes(5 << 20, 17));
}

TEST_F(GrpcTest, AMethodThatDoesNotExistIsUnimplemented) {
  const grpc::Status unknown =
      SendRaw(harness_.channel(), "/modelstore.v1.ModelStore/Nonsense", {""});
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

// Saves a tensor of 9 MiB in chunks of 4 MiB, a section of 4.5 MiB and `tensors` small
// tensors with long keys.
void SaveLarge(GrpcHarness& harness, const TestTensor& large, const std::string& value,
               int tensors) {
  std::vector<v1::SaveCheckpointRequest> requests(2);
  requests[0].set_parent("models/large");
  requests[0].set_create_model(true);
  *requests[0].mutable_manifest()->add_tensors() = large.tensor;
  auto* section = requests[1].mutable_manifest()->add_sections();
  section->set_name("extra");
  section->mutable_value()->set_bytes_value(value);
  for (int i = 0; i < tensors; ++i) {
    if (i % 4000 == 0) requests.emplace_back();
    *requests.back().mutable_manifest()->add_tensors() =
        MakeTensor(absl::StrCat(std::string(200, 'k'), i), v1::DTYPE_UINT8, {0}, "")
            .tensor;
  }
  for (const auto& chunk : large.chunks) AddChunk(&requests.emplace_back(), chunk);
  requests.emplace_back().set_finish(true);
  v1::Checkpoint checkpoint;
  const grpc::Status status = harness.Save(requests, &checkpoint);
  ASSERT_TRUE(status.ok()) << status.error_message();
}

TEST_F(GrpcTest, AStubWithDefaultLimitsLoadsLargeTensorsSectionsAndTables) {
  const int64_t size = int64_t{9} << 20;
  const TestTensor large =
      MakeTensor("w", v1::DTYPE_UINT8, {size}, MakeBytes(size, 5), kMaxChunkBytes);
  const std::string value = MakeBytes(9 << 19, 6);
  SaveLarge(harness_, large, value, 30'000);
  v1::LoadCheckpointRequest request;
  request.set_name("models/large/checkpoints/1");
  Loaded loaded;
  const grpc::Status loading = harness_.Load(request, &loaded);
  ASSERT_TRUE(loading.ok()) << loading.error_message();
  EXPECT_LE(loaded.longest_message, size_t{4'194'304});
  EXPECT_TRUE(loaded.bytes == large.bytes);
  EXPECT_EQ(loaded.plan.tensors_size(), 30'001);
  const auto& sections = loaded.plan.sections();
  EXPECT_TRUE(std::any_of(sections.begin(), sections.end(), [&](const auto& section) {
    return section.name() == "extra" && section.value().bytes_value() == value;
  }));
  int listed = 0;
  v1::ListTensorsRequest list;
  list.set_parent("models/large/checkpoints/1");
  list.set_page_size(10'000);
  do {
    Context context;
    v1::ListTensorsResponse page;
    const grpc::Status status = harness_.store().ListTensors(&context, list, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_LE(page.ByteSizeLong(), size_t{4'194'304});
    listed += page.tensors_size();
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty());
  EXPECT_EQ(listed, 30'001);
}

}  // namespace
}  // namespace modelstore::server
