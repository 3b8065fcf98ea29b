#include "client/internal/check_strings.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "proto/contract/errors.h"
#include "proto/contract/utf8.h"

namespace modelstore::internal {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Longest name shown in an error message.
constexpr size_t kShownBytes = 200;

// Names a map entry by its key, and an element of another list by its index.
std::string EntryName(const std::string& list, const FieldDescriptor& field,
                      const Message& entry, int index) {
  const FieldDescriptor* key = field.is_map() ? field.message_type()->map_key() : nullptr;
  if (key == nullptr || key->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
    return absl::StrCat(list, "[", index, "]");
  }
  std::string scratch;
  const std::string& text =
      entry.GetReflection()->GetStringReference(entry, key, &scratch);
  return absl::StrCat(list, "[\"", ToUtf8(text, kShownBytes), "\"]");
}

absl::Status CheckTexts(const Message& message, const FieldDescriptor& field,
                        const std::string& name) {
  const auto& reflection = *message.GetReflection();
  std::string scratch;
  if (!field.is_repeated()) {
    return CheckString(name, reflection.GetStringReference(message, &field, &scratch));
  }
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    absl::Status s =
        CheckString(absl::StrCat(name, "[", i, "]"),
                    reflection.GetRepeatedStringReference(message, &field, i, &scratch));
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status CheckMessages(const Message& message, const FieldDescriptor& field,
                           const std::string& name) {
  const auto& reflection = *message.GetReflection();
  if (!field.is_repeated()) {
    return CheckStrings(reflection.GetMessage(message, &field), name);
  }
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    absl::Status s = CheckStrings(entry, EntryName(name, field, entry, i));
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckString(const std::string& field, const std::string& text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = Utf8SequenceLength(absl::string_view(text).substr(at));
    if (length == 0) {
      return InvalidField(field,
                          absl::StrCat("is not UTF-8 at byte ", at, " of ", text.size()));
    }
    at += length;
  }
  return absl::OkStatus();
}

absl::Status CheckStrings(const Message& message, const std::string& path) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool entry = message.GetDescriptor()->options().map_entry();
    // The name of the entry already identifies key and value.
    const std::string name = entry          ? path
                             : path.empty() ? field->name()
                                            : absl::StrCat(path, ".", field->name());
    absl::Status s;
    if (field->type() == FieldDescriptor::TYPE_STRING) {
      s = CheckTexts(message, *field, name);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      s = CheckMessages(message, *field, name);
    }
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::internal
