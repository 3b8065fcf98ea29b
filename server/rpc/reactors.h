// One reactor per kind of RPC: unary, client stream, server stream. Each passes its
// messages to a session of the Service on the storage pool. gRPC runs only as many
// callbacks at once as there are cores, so no reactor reads or writes storage, or
// computes a digest, on a gRPC thread.
//
// Lock order: StreamWatch's mutex, then a reactor's, then those of ByteBudget,
// StoragePool and the session. A reactor therefore never calls StreamWatch with its own
// mutex held.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "server/rpc/rpc_host.h"

namespace modelstore::server {

// Each starts one RPC. The reactor owns itself: gRPC calls OnDone() once, after the last
// other callback, and OnDone() deletes it. `host` and `method` must outlive the RPC.
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
