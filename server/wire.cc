#include "server/wire.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "proto/contract/limits.h"

namespace modelstore::server {

absl::Status ParseMessage(absl::string_view bytes, google::protobuf::Message* message) {
  google::protobuf::io::CodedInputStream input(
      reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  input.SetRecursionLimit(kMaxNestedMessages);
  if (message->ParseFromCodedStream(&input) && input.ConsumedEntireMessage()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the message is not a well-formed ", message->GetDescriptor()->full_name(),
      ": check its encoding, that strings are UTF-8, and that values are at "
      "most ",
      kMaxValueDepth, " levels deep"));
}

std::string SerializeDeterministic(const google::protobuf::Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream output(&stream);
    output.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&output);
  }
  return bytes;
}

absl::StatusOr<std::string> SerializeAnswer(const google::protobuf::Message& message,
                                            absl::string_view what) {
  const size_t size = message.ByteSizeLong();
  if (size > static_cast<size_t>(kMaxUnaryAnswerBytes)) {
    return absl::OutOfRangeError(absl::StrCat(
        what, " takes ", size, " bytes, and an answer at most ", kMaxUnaryAnswerBytes));
  }
  return message.SerializeAsString();
}

}  // namespace modelstore::server
