// Serializes and parses messages with this project's limits instead of protobuf's
// defaults.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/message_lite.h"

namespace modelstore {

// Equal messages give equal bytes: maps are written in key order. Compare-and-set,
// repeated requests and content digests depend on this.
std::string SerializeDeterministic(const google::protobuf::MessageLite& message);

// As ParseFromString(), but allows kMaxNestedMessages levels. False if `bytes` is not a
// well-formed message of that type.
bool ParseMessage(absl::string_view bytes, google::protobuf::MessageLite* message);
// The same, added to what `message` holds, which is undefined after false.
bool MergeMessage(absl::string_view bytes, google::protobuf::MessageLite* message);

}  // namespace modelstore
