// Converts between gRPC's buffers and this server's messages without copying payloads.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/core/session.h"
#include "server/rpc/storage_pool.h"

namespace modelstore::server {

// The slices of a received message. The views are valid as long as this lives.
class Fragments {
 public:
  explicit Fragments(const grpc::ByteBuffer& buffer);
  const std::vector<absl::string_view>& views() const { return views_; }
  // Returns the whole message as one string; a copy.
  std::string Join() const;

 private:
  std::vector<grpc::Slice> slices_;
  std::vector<absl::string_view> views_;
};

grpc::ByteBuffer ToBuffer(const std::string& bytes);

// Makes a buffer that refers to head and payloads in place. `held` bytes of `budget`,
// which the caller has taken, are released when gRPC frees the last slice.
grpc::ByteBuffer ToBuffer(OutboundMessage message, int64_t held,
                          std::shared_ptr<ByteBudget> budget);

}  // namespace modelstore::server
