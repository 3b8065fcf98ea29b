#include "proto/contract/message_codec.h"

#include <cstdint>
#include <limits>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "proto/contract/limits.h"

namespace modelstore {

std::string SerializeDeterministic(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream output(&stream);
    output.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&output);
  }
  return bytes;
}

bool ParseMessage(absl::string_view bytes, google::protobuf::MessageLite* message) {
  message->Clear();
  return MergeMessage(bytes, message);
}

bool MergeMessage(absl::string_view bytes, google::protobuf::MessageLite* message) {
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) return false;
  google::protobuf::io::CodedInputStream input(
      reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  input.SetRecursionLimit(kMaxNestedMessages);
  return message->MergeFromCodedStream(&input) && input.ConsumedEntireMessage();
}

}  // namespace modelstore
