// The three shapes of RPC as reactors: unary, client stream, server stream. Each
// hands its messages to a session of the Service on the storage pool; none of
// them touches storage, or computes a digest, on a gRPC thread.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "server/rpc/rpc_host.h"

namespace modelstore::server {

// They delete themselves when their RPC is over. `host` and `method` outlive it.
grpc::ServerUnaryReactor* StartUnary(RpcHost* host, const std::string& method,
                                     grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response);
grpc::ServerReadReactor<grpc::ByteBuffer>* StartInbound(
    RpcHost* host, const std::string& method, grpc::CallbackServerContext* context,
    grpc::ByteBuffer* response);
grpc::ServerWriteReactor<grpc::ByteBuffer>* StartOutbound(
    RpcHost* host, const std::string& method, grpc::CallbackServerContext* context,
    const grpc::ByteBuffer* request);

}  // namespace modelstore::server
