// Between gRPC's buffers and ours, without copying payloads.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/core/session.h"
#include "server/rpc/storage_pool.h"

namespace modelstore::server {

// The pieces of memory that a message arrived in.
class Fragments {
 public:
  explicit Fragments(const grpc::ByteBuffer& buffer);
  const std::vector<absl::string_view>& views() const { return views_; }
  // All of it in one piece: copied unless it arrived so.
  std::string Join() const;

 private:
  std::vector<grpc::Slice> slices_;
  std::vector<absl::string_view> views_;
};

grpc::ByteBuffer ToBuffer(const std::string& bytes);

// Head and payloads are sent in place; `held` bytes of `budget` are released when gRPC
// has let go of the last of them.
grpc::ByteBuffer ToBuffer(OutboundMessage message, int64_t held,
                          std::shared_ptr<ByteBudget> budget);

}  // namespace modelstore::server
