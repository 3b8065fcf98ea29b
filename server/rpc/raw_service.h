// A service of the contract, registered with gRPC by its descriptor. Every method
// passes raw buffers to the reactors, so that payloads are never parsed by protobuf.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "server/rpc/rpc_host.h"

namespace modelstore::server {

class RawService final : public grpc::Service {
 public:
  // `host` outlives the server that this is registered with.
  RawService(const google::protobuf::ServiceDescriptor& descriptor, RpcHost* host);

 private:
  // gRPC keeps pointers to the names.
  std::vector<std::unique_ptr<std::string>> names_;
};

}  // namespace modelstore::server
