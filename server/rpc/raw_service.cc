// Registers all methods in a loop, with the same gRPC calls as the generated
// WithRawCallbackMethod_* classes make for one method each.
#include "server/rpc/raw_service.h"

#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "absl/strings/str_cat.h"
#include "server/rpc/reactors.h"

namespace modelstore::server {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::internal::CallbackClientStreamingHandler;
using grpc::internal::CallbackServerStreamingHandler;
using grpc::internal::CallbackUnaryHandler;
using grpc::internal::MethodHandler;
using grpc::internal::RpcMethod;
using grpc::internal::RpcServiceMethod;

RpcMethod::RpcType TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming()) return RpcMethod::CLIENT_STREAMING;
  if (method.server_streaming()) return RpcMethod::SERVER_STREAMING;
  return RpcMethod::NORMAL_RPC;
}

MethodHandler* MakeHandler(RpcMethod::RpcType type, RpcHost* host,
                           const std::string& name) {
  switch (type) {
    case RpcMethod::CLIENT_STREAMING:
      return new CallbackClientStreamingHandler<ByteBuffer, ByteBuffer>(
          [host, &name](CallbackServerContext* context, ByteBuffer* response) {
            return StartInbound(host, name, context, response);
          });
    case RpcMethod::SERVER_STREAMING:
      return new CallbackServerStreamingHandler<ByteBuffer, ByteBuffer>(
          [host, &name](CallbackServerContext* context, const ByteBuffer* request) {
            return StartOutbound(host, name, context, request);
          });
    default:
      return new CallbackUnaryHandler<ByteBuffer, ByteBuffer>(
          [host, &name](CallbackServerContext* context, const ByteBuffer* request,
                        ByteBuffer* response) {
            return StartUnary(host, name, context, request, response);
          });
  }
}

}  // namespace

RawService::RawService(const google::protobuf::ServiceDescriptor& descriptor,
                       RpcHost* host) {
  for (int i = 0; i < descriptor.method_count(); ++i) {
    const auto& method = *descriptor.method(i);
    names_.push_back(std::make_unique<std::string>(
        absl::StrCat("/", descriptor.full_name(), "/", method.name())));
    const RpcMethod::RpcType type = TypeOf(method);
    AddMethod(new RpcServiceMethod(names_.back()->c_str(), type, nullptr));
    MarkMethodRawCallback(i, MakeHandler(type, host, *names_.back()));
  }
}

}  // namespace modelstore::server
