#include "proto/contract/status_codec.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "modelstore/rpc/status.pb.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

constexpr absl::string_view kTypeUrlPrefix = "type.googleapis.com/";
constexpr absl::string_view kErrorInfoUrl = "type.googleapis.com/google.rpc.ErrorInfo";
// Many proxies, and gRPC by default, refuse trailers over 8 KiB, and the message is in
// them twice.
constexpr size_t kMaxMessageBytes = 4096;
constexpr size_t kMaxDetailBytes = 3072;

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& given) {
  if (given.ok()) return grpc::Status::OK;
  const absl::Status status = EnsureReason(given);
  const auto code = static_cast<grpc::StatusCode>(status.code());
  rpc::Status detailed;
  size_t detail_bytes = 0;
  auto add = [&](absl::string_view url, const absl::Cord& payload) {
    if (detail_bytes + payload.size() > kMaxDetailBytes) return;
    detail_bytes += payload.size();
    auto* detail = detailed.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(payload));
  };
  // First, so that it is never the one that does not fit.
  add(kErrorInfoUrl, *status.GetPayload(kErrorInfoUrl));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    if (absl::StartsWith(url, kTypeUrlPrefix) && url != kErrorInfoUrl) add(url, payload);
  });
  detailed.set_code(static_cast<int>(status.code()));
  // Readers use the message of the RPC's status.
  detailed.set_message(ToUtf8(status.message(), 256));
  return grpc::Status(code, ToUtf8(status.message(), kMaxMessageBytes),
                      detailed.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = status.error_message();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), message);
  rpc::Status detailed;
  if (ParseMessage(status.error_details(), &detailed)) {
    for (const auto& detail : detailed.details()) {
      if (detail.type_url().empty()) continue;
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
    }
  }
  return result;
}

}  // namespace modelstore
