#include "server/rpc/byte_buffers.h"

#include <utility>

namespace modelstore::server {
namespace {

// Bytes of a budget, released by the destructor.
class Ticket {
 public:
  Ticket(int64_t bytes, std::shared_ptr<ByteBudget> budget)
      : bytes_(bytes), budget_(std::move(budget)) {}
  ~Ticket() { budget_->Release(bytes_); }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;

 private:
  const int64_t bytes_;
  // Shared: gRPC may free the last buffers of a connection after the server is gone.
  const std::shared_ptr<ByteBudget> budget_;
};

// Owner of one slice that gRPC sends in place; deleted with the slice's last reference.
template <typename Bytes>
struct Sent {
  Bytes bytes;
  std::shared_ptr<Ticket> ticket;
};

template <typename Bytes>
grpc::Slice ToSlice(Bytes bytes, std::shared_ptr<Ticket> ticket,
                    absl::string_view (*view_of)(const Bytes&)) {
  // The view must be taken after the move: a short string keeps its bytes inline.
  auto* sent = new Sent<Bytes>{std::move(bytes), std::move(ticket)};
  const absl::string_view view = view_of(sent->bytes);
  return grpc::Slice(
      const_cast<char*>(view.data()), view.size(),
      [](void* owned) { delete static_cast<Sent<Bytes>*>(owned); }, sent);
}

}  // namespace

Fragments::Fragments(const grpc::ByteBuffer& buffer) {
  grpc::Slice single;
  if (buffer.TrySingleSlice(&single).ok()) {
    slices_.push_back(std::move(single));
  } else {
    buffer.Dump(&slices_);
  }
  views_.reserve(slices_.size());
  for (const grpc::Slice& slice : slices_) {
    views_.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
}

std::string Fragments::Join() const {
  std::string bytes;
  for (const absl::string_view view : views_) bytes.append(view.data(), view.size());
  return bytes;
}

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

grpc::ByteBuffer ToBuffer(OutboundMessage message, int64_t held,
                          std::shared_ptr<ByteBudget> budget) {
  auto ticket = std::make_shared<Ticket>(held, std::move(budget));
  std::vector<grpc::Slice> slices;
  slices.reserve(message.payloads.size() + 1);
  slices.push_back(ToSlice<std::string>(
      std::move(message.head), ticket,
      [](const std::string& head) { return absl::string_view(head); }));
  for (storage::PinnedBytes& bytes : message.payloads) {
    if (bytes.view().empty()) continue;
    slices.push_back(ToSlice<storage::PinnedBytes>(
        std::move(bytes), ticket,
        [](const storage::PinnedBytes& payload) { return payload.view(); }));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace modelstore::server
