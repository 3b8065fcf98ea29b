// Calls that go on for long, over gRPC: they hold no thread while they wait, and end
// when the client wants them to.
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

// One storage thread: whoever holds it holds up all the others.
ServerConfig OneThread() {
  ServerConfig config = TestConfig();
  config.storage_threads = 1;
  return config;
}

TEST(VerifyGrpcTest, ManyRateLimitedCallsBlockNoOthers) {
  GrpcHarness harness(OneThread());
  harness.SaveModel("models/m", 4);
  v1::VerifyCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  request.set_max_bytes_per_second(1);
  struct Call {
    Context context;
    std::unique_ptr<grpc::ClientReader<v1::VerifyCheckpointResponse>> reader;
  };
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 20; ++i) {
    auto& call = calls.emplace_back(std::make_unique<Call>());
    call->reader = harness.store().VerifyCheckpoint(&call->context, request);
    v1::VerifyCheckpointResponse response;
    ASSERT_TRUE(call->reader->Read(&response));
    EXPECT_TRUE(response.has_progress());
  }
  const absl::Time begin = absl::Now();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(harness.Stats().checkpoint_count(), 1);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));

  // Each is told how far it is, at least every second.
  v1::VerifyCheckpointResponse response;
  const absl::Time waited_from = absl::Now();
  ASSERT_TRUE(calls[0]->reader->Read(&response));
  EXPECT_LT(absl::Now() - waited_from, absl::Seconds(3));
  EXPECT_EQ(response.progress().total_bytes(), 4 << 20);
  EXPECT_EQ(response.progress().verified_bytes(), 1 << 20)
      << "one chunk, and then it waits";

  EXPECT_EQ(harness.server().streams(), 20);
  for (auto& call : calls) call->context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return harness.server().streams() == 0; }));
  for (auto& call : calls) {
    while (call->reader->Read(&response)) continue;
    EXPECT_EQ(call->reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
}

TEST(VerifyGrpcTest, ARateLimitedCallEndsWithTheServer) {
  GrpcHarness harness(OneThread());
  harness.SaveModel("models/m", 4);
  v1::VerifyCheckpointRequest request;
  request.set_name("models/m/checkpoints/1");
  request.set_max_bytes_per_second(1);
  Context context;
  auto reader = harness.store().VerifyCheckpoint(&context, request);
  v1::VerifyCheckpointResponse response;
  ASSERT_TRUE(reader->Read(&response));
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(harness.server().Shutdown(absl::Milliseconds(300)).ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
}

TEST(VerifyGrpcTest, AtFullSpeedItComesToItsResult) {
  GrpcHarness harness;
  harness.SaveModel("models/m", 40);
  v1::VerifyCheckpointRequest request;
  request.set_name("models/m/checkpoints/latest");
  Context context;
  auto reader = harness.store().VerifyCheckpoint(&context, request);
  v1::VerifyCheckpointResponse response;
  while (reader->Read(&response)) continue;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(response.result().verified_bytes(), 40 << 20);
  EXPECT_EQ(response.result().damaged_tensors(), 0);
}

}  // namespace
}  // namespace modelstore::server
