#include "proto/contract/errors.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/message_lite.h"
#include "google/rpc/error_details.pb.h"
#include "proto/contract/utf8.h"

namespace modelstore {
namespace {

constexpr absl::string_view kTypeUrlPrefix = "type.googleapis.com/";
constexpr char kDomain[] = "modelstore";
constexpr char kOverloaded[] = "OVERLOADED";

template <typename Detail>
void Attach(absl::Status& status, const Detail& detail) {
  status.SetPayload(absl::StrCat(kTypeUrlPrefix, detail.GetTypeName()),
                    absl::Cord(detail.SerializeAsString()));
}

// The detail of this type, if there is one that can be read.
template <typename Detail>
std::optional<Detail> Attached(const absl::Status& status) {
  Detail detail;
  const auto bytes =
      status.GetPayload(absl::StrCat(kTypeUrlPrefix, detail.GetTypeName()));
  if (!bytes.has_value() || !detail.ParseFromString(std::string(*bytes))) {
    return std::nullopt;
  }
  return detail;
}

// Names that a client sent may be anything, and of any length.
std::string Text(absl::string_view text) { return ToUtf8(text, 1280); }

absl::Status WithMessage(const absl::Status& status, absl::string_view message) {
  if (status.ok()) return status;
  absl::Status copy(status.code(), message);
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    copy.SetPayload(url, payload);
  });
  return copy;
}

void AttachResource(absl::Status& status, absl::string_view type, absl::string_view name,
                    absl::string_view description) {
  google::rpc::ResourceInfo info;
  info.set_resource_type(Text(type));
  info.set_resource_name(Text(name));
  info.set_description(Text(description));
  Attach(status, info);
}

}  // namespace

absl::Status InvalidField(absl::string_view field, absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(field, ": ", message));
  google::rpc::BadRequest detail;
  auto* violation = detail.add_field_violations();
  violation->set_field(Text(field));
  violation->set_description(Text(message));
  Attach(status, detail);
  return status;
}

absl::Status NoSuch(absl::string_view type, absl::string_view name) {
  absl::Status status =
      absl::NotFoundError(absl::StrCat(type, " ", name, " does not exist"));
  AttachResource(status, type, name, "does not exist");
  return status;
}

absl::Status AlreadyExists(absl::string_view type, absl::string_view name) {
  absl::Status status =
      absl::AlreadyExistsError(absl::StrCat(type, " ", name, " already exists"));
  AttachResource(status, type, name, "already exists");
  return status;
}

absl::Status Unavailable(absl::string_view message, int retry_after_ms) {
  absl::Status status = absl::UnavailableError(message);
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(retry_after_ms / 1000);
  detail.mutable_retry_delay()->set_nanos(retry_after_ms % 1000 * 1'000'000);
  Attach(status, detail);
  return status;
}

absl::Status Overloaded(absl::string_view message, int retry_after_ms) {
  absl::Status status = Unavailable(message, retry_after_ms);
  google::rpc::ErrorInfo detail;
  detail.set_reason(kOverloaded);
  detail.set_domain(kDomain);
  Attach(status, detail);
  return status;
}

bool IsOverloaded(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return false;
  const auto info = Attached<google::rpc::ErrorInfo>(status);
  return info.has_value() && info->reason() == kOverloaded && info->domain() == kDomain;
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto info = Attached<google::rpc::RetryInfo>(status);
  if (!info.has_value() || !info->has_retry_delay()) return std::nullopt;
  return absl::Seconds(info->retry_delay().seconds()) +
         absl::Nanoseconds(info->retry_delay().nanos());
}

absl::Status TensorDataLoss(absl::string_view checkpoint, absl::string_view tensor,
                            absl::string_view what) {
  absl::Status status = absl::DataLossError(
      absl::StrCat("tensor ", tensor, " of ", checkpoint, ": ", what));
  AttachResource(status, "tensor", absl::StrCat(checkpoint, "/", tensor), what);
  return status;
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  return WithMessage(status, absl::StrCat(context, ": ", status.message()));
}

absl::Status AppendTo(const absl::Status& status, absl::string_view addition) {
  return WithMessage(status, absl::StrCat(status.message(), "; ", addition));
}

}  // namespace modelstore
