// The one codec of messages: what it writes and what it takes.
#include "proto/contract/message_codec.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/limits.h"

namespace modelstore {
namespace {

TEST(MessageCodec, EqualMessagesGiveEqualBytesWhateverTheOrderOfTheirMaps) {
  v1::Checkpoint up, down;
  for (int i = 0; i < 100; ++i) {
    (*up.mutable_labels())[absl::StrCat("k", i)] = "v";
    (*down.mutable_labels())[absl::StrCat("k", 99 - i)] = "v";
  }
  EXPECT_EQ(SerializeDeterministic(up), SerializeDeterministic(down));
}

TEST(MessageCodec, ParsingReplacesAndMergingAdds) {
  v1::ManifestPart first, second;
  first.add_sections()->set_name("a");
  second.add_sections()->set_name("b");
  v1::ManifestPart message = first;
  EXPECT_TRUE(MergeMessage(second.SerializeAsString(), &message));
  EXPECT_EQ(message.sections_size(), 2);
  EXPECT_TRUE(ParseMessage(second.SerializeAsString(), &message));
  EXPECT_EQ(message.sections_size(), 1);
  EXPECT_FALSE(ParseMessage("\xff", &message));
  EXPECT_FALSE(MergeMessage("\xff", &message));
}

TEST(MessageCodec, ItTakesAsManyNestedMessagesAsTheContract) {
  const auto nested = [](int messages) {
    v1::Value value;
    v1::Value* leaf = &value;
    // Two for each level of a list, and the value itself.
    for (int i = 1; i + 2 <= messages; i += 2) {
      leaf = leaf->mutable_list_value()->add_values();
    }
    return value.SerializeAsString();
  };
  v1::Value value;
  EXPECT_TRUE(ParseMessage(nested(kMaxNestedMessages - 10), &value));
  EXPECT_FALSE(ParseMessage(nested(kMaxNestedMessages + 10), &value));
}

}  // namespace
}  // namespace modelstore
