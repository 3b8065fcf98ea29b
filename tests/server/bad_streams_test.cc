// Clients that send rubbish, stall or die: a clear error, others unhurt, memory
// back.
#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/contract/limits.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

class BadStreamsTest : public testing::Test {
 protected:
  // A healthy client's word on the server.
  void ExpectHealthy() {
    const std::string model = absl::StrCat("models/ok", next_++);
    harness_.SaveModel(model, 1);
    v1::LoadCheckpointRequest request;
    request.set_name(model + "/checkpoints/latest");
    Loaded loaded;
    EXPECT_TRUE(harness_.Load(request, &loaded).ok());
    EXPECT_EQ(loaded.bytes.size(), size_t{1} << 20);
  }

  GrpcHarness harness_;
  int next_ = 0;
};

TEST_F(BadStreamsTest, RubbishIsInvalidArgumentOnEveryStream) {
  for (const char* method : {"SaveCheckpoint", "UploadChunks"}) {
    const std::string name = absl::StrCat(kTransfer, method);
    for (uint32_t seed = 0; seed < 20; ++seed) {
      const grpc::Status status =
          SendRaw(harness_.channel(), name, {MakeBytes(1 + seed * 97, seed)});
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
          << status.error_message();
    }
    EXPECT_EQ(SendRaw(harness_.channel(), name, {}).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(SendRaw(harness_.channel(), name, {""}).error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  ExpectHealthy();
}

TEST_F(BadStreamsTest, SizesOf2To63AndWrongDigestsAreRefused) {
  v1::SaveCheckpointRequest first;
  first.set_parent("models/m");
  first.set_create_model(true);
  const TestTensor tensor = MakeTensor("w", v1::DTYPE_UINT8, {64}, MakeBytes(64, 1));
  *first.mutable_manifest()->add_tensors() = tensor.tensor;
  for (const int64_t size : {INT64_MAX, INT64_MIN, int64_t{0}, kMaxChunkBytes + 1}) {
    v1::SaveCheckpointRequest bad;
    AddChunk(&bad, tensor.bytes);
    bad.mutable_chunks(0)->set_size_bytes(size);
    v1::Checkpoint checkpoint;
    const grpc::Status status = harness_.Save({first, bad}, &checkpoint);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), testing::HasSubstr("chunks[0].size_bytes"));
  }
  v1::SaveCheckpointRequest bad;
  AddChunk(&bad, tensor.bytes);
  bad.mutable_data()->at(0) ^= 1;
  v1::Checkpoint checkpoint;
  EXPECT_EQ(harness_.Save({first, bad}, &checkpoint).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  ExpectHealthy();
}

TEST_F(BadStreamsTest, AMessageOverTheLimitIsRefused) {
  const grpc::Status status =
      SendRaw(harness_.channel(), absl::StrCat(kTransfer, "SaveCheckpoint"),
              {std::string(kMaxMessageBytes + 1, 'x')});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED)
      << status.error_message();
  ExpectHealthy();
}

TEST_F(BadStreamsTest, AStreamThatIsCutMidwayLeavesNothing) {
  for (int i = 0; i < 20; ++i) {
    Context context;
    v1::Checkpoint checkpoint;
    auto stream = harness_.transfer().SaveCheckpoint(&context, &checkpoint);
    v1::SaveCheckpointRequest first;
    first.set_parent("models/cut");
    first.set_create_model(true);
    const TestTensor tensor =
        MakeTensor("w", v1::DTYPE_UINT8, {1 << 20}, MakeBytes(1 << 20, i));
    *first.mutable_manifest()->add_tensors() = tensor.tensor;
    stream->Write(first);
    v1::SaveCheckpointRequest data;
    AddChunk(&data, tensor.bytes);
    stream->Write(data);
    context.TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().active_save_streams() == 0; }));
  EXPECT_EQ(harness_.Stats().checkpoint_count(), 0);
  EXPECT_EQ(harness_.Stats().buffered_bytes(), 0);
  ExpectHealthy();
}

// An upload whose client opened it, sent something and fell silent.
struct Stalled {
  explicit Stalled(GrpcHarness& harness, const std::string& upload, int i)
      : context(absl::Seconds(60)) {
    auto stub = v1::CheckpointTransfer::NewStub(harness.channel());
    stream = stub->UploadChunks(&context, &response);
    v1::UploadChunksRequest request;
    request.set_upload(upload);
    AddChunk(&request, MakeBytes(100'000, i));
    sent = stream->Write(request);
  }
  Context context;
  v1::UploadChunksResponse response;
  std::unique_ptr<grpc::ClientWriter<v1::UploadChunksRequest>> stream;
  bool sent = false;
};

TEST_F(BadStreamsTest, StalledUploadsHoldNoThreadsAndGiveTheirMemoryBack) {
  Context context;
  v1::CreateUploadRequest create;
  create.set_parent("models/m");
  create.set_create_model(true);
  v1::Upload upload;
  ASSERT_TRUE(harness_.transfer().CreateUpload(&context, create, &upload).ok());
  ExpectHealthy();
  const double before = RssAnonMib();
  constexpr int kStreams = 100;
  std::vector<std::unique_ptr<Stalled>> stalled;
  for (int i = 0; i < kStreams; ++i) {
    stalled.push_back(std::make_unique<Stalled>(harness_, upload.name(), i));
    EXPECT_TRUE(stalled.back()->sent);
  }
  EXPECT_TRUE(
      Eventually([&] { return harness_.Stats().active_save_streams() == kStreams; }));
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().buffered_bytes() == 0; }))
      << "what arrived was taken in";
  ExpectHealthy();
  const double during = RssAnonMib();
  for (auto& s : stalled) s->context.TryCancel();
  for (auto& s : stalled) EXPECT_FALSE(s->stream->Finish().ok());
  stalled.clear();
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().active_save_streams() == 0; }));
  std::printf("RssAnon: %.0f MiB before, %.0f with %d stalled uploads, %.0f after\n",
              before, during, kStreams, RssAnonMib());
  // Client and server share this process: the bound is generous.
  EXPECT_LT(during - before, 200);
}

class ShortPatience : public testing::Test {
 protected:
  static ServerConfig Impatient() {
    ServerConfig config = TestConfig();
    config.idle_timeout = absl::Milliseconds(400);
    return config;
  }
  GrpcHarness harness_{Impatient()};
};

TEST_F(ShortPatience, AnIdleUploadIsClosedAndItsChunksAreKept) {
  Context c1;
  v1::CreateUploadRequest create;
  create.set_parent("models/m");
  create.set_create_model(true);
  v1::Upload upload;
  ASSERT_TRUE(harness_.transfer().CreateUpload(&c1, create, &upload).ok());
  Stalled stalled(harness_, upload.name(), 1);
  const grpc::Status status = stalled.stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), testing::StartsWith("stream idle for "));
  EXPECT_THAT(status.error_message(),
              testing::EndsWith(", closed; uploaded chunks are kept"));
  Context c2;
  v1::GetUploadRequest get;
  get.set_name(upload.name());
  ASSERT_TRUE(harness_.transfer().GetUpload(&c2, get, &upload).ok());
  EXPECT_EQ(upload.sealed_bytes(), 100'000);
}

TEST_F(ShortPatience, ASilentSaveIsReportedThatNothingWasSaved) {
  Context context;
  v1::Checkpoint saved;
  auto stream = harness_.transfer().SaveCheckpoint(&context, &saved);
  v1::SaveCheckpointRequest request;
  request.set_parent("models/m");
  request.set_create_model(true);
  ASSERT_TRUE(stream->Write(request));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), testing::EndsWith(", closed; nothing was saved"));
}

TEST_F(ShortPatience, ALoadThatNobodyReadsIsCutAndItsMemoryFreed) {
  harness_.SaveModel("models/m", 48);
  Context context;
  v1::LoadCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  auto stream = harness_.transfer().LoadCheckpoint(&context, request);
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().buffered_bytes() > 0; }));
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().active_load_streams() == 0; }));
  EXPECT_TRUE(Eventually([&] { return harness_.Stats().buffered_bytes() == 0; }));
  v1::LoadCheckpointResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_FALSE(stream->Finish().ok());
}

TEST(StallsTest, LoadsThatNobodyReadsDoNotKeepOthersWaiting) {
  ServerConfig config = TestConfig();
  // Room for two messages on their way out.
  config.memory_budget_bytes = 8 * kMaxMessageBytes;
  config.stall_timeout = absl::Milliseconds(500);
  GrpcHarness harness(config);
  harness.SaveModel("models/m", 48);
  v1::LoadCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  std::vector<std::unique_ptr<Context>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::LoadCheckpointResponse>>> stalled;
  std::vector<std::unique_ptr<v1::CheckpointTransfer::Stub>> stubs;
  for (int i = 0; i < 20; ++i) {
    stubs.push_back(v1::CheckpointTransfer::NewStub(harness.NewChannel()));
    contexts.push_back(std::make_unique<Context>());
    stalled.push_back(stubs.back()->LoadCheckpoint(contexts.back().get(), request));
  }
  const absl::Time begin = absl::Now();
  Loaded loaded;
  const grpc::Status status = harness.Load(request, &loaded);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(loaded.bytes.size(), size_t{48} << 20);
  std::printf("a healthy load beside 20 stalled ones took %.2f s\n",
              absl::ToDoubleSeconds(absl::Now() - begin));
  for (auto& context : contexts) context->TryCancel();
}

}  // namespace
}  // namespace modelstore::server
