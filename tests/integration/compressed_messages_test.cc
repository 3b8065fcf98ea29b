// Messages that are small on the wire and huge once inflated.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/raw_client.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

constexpr size_t kInflated = size_t{256} << 20;

class CompressedMessagesTest
    : public ::testing::TestWithParam<grpc_compression_algorithm> {
 protected:
  void SetUp() override {
    auto server = support::ServerProcess::Start({.folder = folder_.path()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // Both calls end so, while the server's memory stays where it was.
  void ExpectRefused(const grpc::Status& status, double peak_mib) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED)
        << status.error_message();
    EXPECT_LT(peak_mib, 100) << "the message was inflated";
    EXPECT_TRUE(
        support::CheckHealth(server_->NewChannel(), std::chrono::seconds(10)).ok());
  }

  support::TempFolder folder_{"compressed"};
  std::unique_ptr<support::ServerProcess> server_;
};

TEST_P(CompressedMessagesTest, AnUnaryRequestIsRefusedBeforeItIsInflated) {
  const support::RssSampler memory(server_->pid());
  auto store = v1::ModelStore::NewStub(server_->NewChannel());
  support::Context context;
  context.set_compression_algorithm(GetParam());
  v1::GetModelRequest request;
  request.set_name(std::string(kInflated, 'a'));
  v1::Model model;
  ExpectRefused(store->GetModel(&context, request, &model), memory.peak_mib());
}

TEST_P(CompressedMessagesTest, AStreamIsRefusedBeforeItIsInflated) {
  const support::RssSampler memory(server_->pid());
  auto transfer = v1::CheckpointTransfer::NewStub(server_->NewChannel());
  support::Context context;
  context.set_compression_algorithm(GetParam());
  v1::UploadChunksResponse response;
  auto stream = transfer->UploadChunks(&context, &response);
  v1::UploadChunksRequest request;
  request.set_data(std::string(kInflated, '\0'));
  stream->Write(request);
  stream->WritesDone();
  ExpectRefused(stream->Finish(), memory.peak_mib());
}

INSTANTIATE_TEST_SUITE_P(Each, CompressedMessagesTest,
                         ::testing::Values(GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE),
                         [](const auto& algorithm) {
                           return algorithm.param == GRPC_COMPRESS_GZIP ? "Gzip"
                                                                        : "Deflate";
                         });

}  // namespace
}  // namespace modelstore
