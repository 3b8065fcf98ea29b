// Shutdown: running streams finish, new ones are refused, nothing hangs.
#include <future>
#include <thread>

#include "server/health_command.h"
#include "tests/server/grpc_harness.h"

namespace modelstore::server {
namespace {

TEST(ShutdownTest, ARunningSaveFinishesAndNewRpcsAreRefused) {
  GrpcHarness harness;
  // A connection that is open before the shutdown begins.
  ASSERT_EQ(harness.Stats().checkpoint_count(), 0);
  const TestTensor tensor =
      MakeTensor("w", v1::DTYPE_UINT8, {8 << 20}, MakeBytes(8 << 20, 3), 1 << 20);
  Context context;
  v1::Checkpoint checkpoint;
  auto stream = harness.transfer().SaveCheckpoint(&context, &checkpoint);
  v1::SaveCheckpointRequest first;
  first.set_parent("models/m");
  first.set_create_model(true);
  *first.mutable_manifest()->add_tensors() = tensor.tensor;
  ASSERT_TRUE(stream->Write(first));
  EXPECT_TRUE(Eventually([&] { return harness.Stats().active_save_streams() == 1; }));

  auto stopped = std::async(std::launch::async,
                            [&] { return harness.server().Shutdown(absl::Seconds(20)); });
  EXPECT_TRUE(Eventually(
      [&] { return !CheckHealth(harness.server().address(), absl::Seconds(1)).ok(); }));
  for (const auto& chunk : tensor.chunks) {
    v1::SaveCheckpointRequest message;
    AddChunk(&message, chunk);
    ASSERT_TRUE(stream->Write(message));
  }
  v1::SaveCheckpointRequest last;
  last.set_finish(true);
  stream->Write(last);
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(checkpoint.name(), "models/m/checkpoints/1");
  EXPECT_TRUE(stopped.get().ok());
}

TEST(ShutdownTest, AStreamThatDoesNotFinishIsCancelledAtTheDeadline) {
  GrpcHarness harness;
  Context context;
  v1::Checkpoint checkpoint;
  auto stream = harness.transfer().SaveCheckpoint(&context, &checkpoint);
  v1::SaveCheckpointRequest first;
  first.set_parent("models/m");
  first.set_create_model(true);
  ASSERT_TRUE(stream->Write(first));
  EXPECT_TRUE(Eventually([&] { return harness.Stats().active_save_streams() == 1; }));
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(harness.server().Shutdown(absl::Milliseconds(500)).ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  EXPECT_FALSE(stream->Finish().ok());
}

TEST(ShutdownTest, ASecondShutdownReturnsWhatTheFirstDid) {
  GrpcHarness harness;
  EXPECT_TRUE(harness.server().Shutdown(absl::ZeroDuration()).ok());
  EXPECT_TRUE(harness.server().Shutdown(absl::ZeroDuration()).ok());
}

TEST(ShutdownTest, ServersStartAndStopManyTimesInOneProcess) {
  for (int i = 0; i < 10; ++i) {
    GrpcHarness harness;
    harness.SaveModel("models/m", 2);
    harness.Stop();
  }
}

}  // namespace
}  // namespace modelstore::server
