#include "server/core/request_codec.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/message_codec.h"

namespace modelstore::server {

absl::Status ParseRequest(absl::string_view bytes, google::protobuf::Message* request) {
  if (ParseMessage(bytes, request)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the message is not a well-formed ", request->GetDescriptor()->full_name(),
      ": check its encoding, that strings are UTF-8, and that values are at most ",
      kMaxValueDepth, " levels deep"));
}

absl::StatusOr<std::string> SerializeAnswer(const google::protobuf::Message& answer,
                                            absl::string_view what) {
  const size_t size = answer.ByteSizeLong();
  if (size > static_cast<size_t>(kMaxAnswerBytes)) {
    return MakeError(ERROR_REASON_ANSWER_TOO_LARGE,
                     absl::StrCat(what, " takes ", size, " bytes, and an answer at most ",
                                  kMaxAnswerBytes),
                     {{"resource_name", std::string(what)},
                      {"maximum_bytes", absl::StrCat(kMaxAnswerBytes)}});
  }
  return answer.SerializeAsString();
}

}  // namespace modelstore::server
