#include "server/health_command.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/contract/status_codec.h"
#include "server/rpc/byte_buffers.h"

namespace modelstore::server {
namespace {

constexpr char kCheckMethod[] = "/grpc.health.v1.Health/Check";
// The encoding of a HealthCheckResponse with status (field 1) SERVING (1), compared byte
// by byte. The request is empty, which checks the server as a whole.
constexpr char kServing[] = "\x08\x01";

}  // namespace

absl::Status CheckHealth(const std::string& target, absl::Duration timeout) {
  auto channel = grpc::CreateChannel(target, grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, kCheckMethod, ToBuffer(""), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, &response);
  // Finish() is the only event. Its deadline is the call's. gRPC requires that the queue
  // is drained after Shutdown().
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (!status.ok()) {
    return absl::UnavailableError(
        absl::StrCat(target, ": ", FromGrpcStatus(status).ToString()));
  }
  if (Fragments(response).Join() != kServing) {
    return absl::UnavailableError(absl::StrCat(target, " is not serving"));
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server
