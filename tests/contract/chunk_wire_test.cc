// Both encodings of the messages that carry chunks, generated and by hand, are
// one: whatever one writes the other reads, and they refuse the same bytes.
#include "proto/contract/chunk_wire.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/unknown_field_set.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

constexpr size_t kMaxHead = 1 << 20;

std::string Joined(const std::vector<absl::string_view>& views) {
  std::string bytes;
  for (absl::string_view view : views) bytes.append(view.data(), view.size());
  return bytes;
}

// Cuts `bytes` into pieces of 0 to max_piece bytes.
std::vector<absl::string_view> Cut(absl::string_view bytes, size_t max_piece,
                                   std::mt19937_64& random) {
  std::vector<absl::string_view> pieces;
  while (!bytes.empty()) {
    const size_t size = std::min(random() % (max_piece + 1), bytes.size());
    pieces.push_back(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  return pieces;
}

google::protobuf::UnknownFieldSet& Unknown(google::protobuf::Message& message) {
  return *message.GetReflection()->MutableUnknownFields(&message);
}

// A message of each kind, its fields filled, and data.
v1::SaveCheckpointRequest MakeSaveRequest(const std::string& data) {
  v1::SaveCheckpointRequest message;
  message.set_parent("models/iris");
  message.mutable_checkpoint()->set_epoch(0);
  (*message.mutable_checkpoint()->mutable_metrics())["accuracy"] = 0.97;
  message.set_request_id("r-1");
  message.set_expected_latest_version(0);
  auto* tensor = message.mutable_manifest()->add_tensors();
  tensor->set_key("fc.weight");
  tensor->add_shape(3);
  message.add_chunks()->set_size_bytes(static_cast<int64_t>(data.size()));
  message.set_finish(true);
  message.set_data(data);
  return message;
}

v1::UploadChunksRequest MakeUploadRequest(const std::string& data) {
  v1::UploadChunksRequest message;
  message.set_upload("models/iris/uploads/u1");
  message.set_contribution(3);
  for (int i = 0; i < 3; ++i) message.add_chunks()->set_digest(std::string(16, 'd'));
  message.set_data(data);
  return message;
}

v1::LoadCheckpointResponse MakeLoadResponse(const std::string& data) {
  v1::LoadCheckpointResponse message;
  message.mutable_plan()->set_total_bytes(123);
  message.mutable_plan()->set_resume_token("t");
  auto* chunk = message.add_chunks();
  chunk->set_position(int64_t{1} << 40);
  chunk->set_size_bytes(static_cast<int64_t>(data.size()));
  message.set_data(data);
  return message;
}

// The hand-built bytes equal the generated ones, and both are read back.
template <typename Message>
void ExpectOneEncoding(const Message& message) {
  const std::string generated = message.SerializeAsString();
  Message headers = message;
  headers.clear_data();
  EXPECT_EQ(ChunkMessageHead(headers, message.data().size()) + message.data(), generated);

  absl::StatusOr<SplitMessage> split = SplitChunkMessage({generated}, kMaxHead);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(Joined(split->data), message.data());
  EXPECT_EQ(split->data_bytes, message.data().size());
  Message read;
  ASSERT_TRUE(read.ParseFromString(split->head));
  EXPECT_EQ(read.SerializeAsString(), headers.SerializeAsString());
}

TEST(ChunkWire, BothEncodingsOfEachMessageAreEqual) {
  for (size_t size : {0, 1, 127, 128, 16383, 16384, 100'000}) {
    const std::string data(size, 'x');
    ExpectOneEncoding(MakeSaveRequest(data));
    ExpectOneEncoding(MakeUploadRequest(data));
    ExpectOneEncoding(MakeLoadResponse(data));
  }
  ExpectOneEncoding(v1::SaveCheckpointRequest());
  ExpectOneEncoding(v1::UploadChunksRequest());
  ExpectOneEncoding(v1::LoadCheckpointResponse());
}

TEST(ChunkWire, DataIsFieldFifteenOfEachMessage) {
  for (const auto* descriptor :
       {v1::SaveCheckpointRequest::descriptor(), v1::UploadChunksRequest::descriptor(),
        v1::LoadCheckpointResponse::descriptor()}) {
    ASSERT_NE(descriptor->FindFieldByName("data"), nullptr);
    EXPECT_EQ(descriptor->FindFieldByName("data")->number(), kChunkDataField);
    for (int i = 0; i < descriptor->field_count(); ++i) {
      EXPECT_LE(descriptor->field(i)->number(), kChunkDataField)
          << "data is the last field";
    }
  }
}

TEST(ChunkWire, APayloadOverManyFragmentsArrivesWhole) {
  std::mt19937_64 random(TestSeed());
  std::string data(5000, '\0');
  for (char& c : data) c = static_cast<char>(random());
  const std::string bytes = MakeLoadResponse(data).SerializeAsString();
  for (size_t max_piece : {1, 2, 3, 7, 64, 1000, 10'000}) {
    absl::StatusOr<SplitMessage> split =
        SplitChunkMessage(Cut(bytes, max_piece, random), kMaxHead);
    ASSERT_TRUE(split.ok()) << split.status();
    EXPECT_EQ(Joined(split->data), data) << max_piece;
  }
}

TEST(ChunkWire, ThePayloadIsNotCopied) {
  const std::string bytes = MakeUploadRequest(std::string(1000, 'x')).SerializeAsString();
  absl::StatusOr<SplitMessage> split = SplitChunkMessage({bytes}, kMaxHead);
  ASSERT_TRUE(split.ok());
  ASSERT_EQ(split->data.size(), 1u);
  EXPECT_EQ(split->data[0].end(), bytes.data() + bytes.size());
}

TEST(ChunkWire, UnknownFieldsAreKept) {
  v1::LoadCheckpointResponse message = MakeLoadResponse("payload");
  auto* unknown = &Unknown(message);
  unknown->AddVarint(100, 7);
  unknown->AddFixed32(101, 8);
  unknown->AddFixed64(102, 9);
  unknown->AddLengthDelimited(103, "text");
  unknown->AddGroup(104)->AddLengthDelimited(kChunkDataField, "not data");
  const std::string bytes = message.SerializeAsString();
  absl::StatusOr<SplitMessage> split = SplitChunkMessage({bytes}, kMaxHead);
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(Joined(split->data), "payload");
  v1::LoadCheckpointResponse read;
  ASSERT_TRUE(read.ParseFromString(split->head));
  read.set_data("payload");
  EXPECT_EQ(read.SerializeAsString(), message.SerializeAsString());
}

TEST(ChunkWire, AWriterOfLaterVersionsKeepsItsUnknownFieldsBeforeData) {
  v1::UploadChunksRequest headers = MakeUploadRequest("");
  Unknown(headers).AddVarint(100, 7);
  const std::string bytes = ChunkMessageHead(headers, 3) + "abc";
  v1::UploadChunksRequest read;
  ASSERT_TRUE(read.ParseFromString(bytes));
  EXPECT_EQ(read.data(), "abc");
  EXPECT_EQ(Unknown(read).field_count(), 1);
}

TEST(ChunkWire, DataMayComeBeforeOtherFields) {
  v1::UploadChunksRequest data, headers = MakeUploadRequest("");
  data.set_data("payload");
  const std::string bytes = data.SerializeAsString() + headers.SerializeAsString();
  absl::StatusOr<SplitMessage> split = SplitChunkMessage({bytes}, kMaxHead);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(Joined(split->data), "payload");
  EXPECT_EQ(split->head, headers.SerializeAsString());
}

TEST(ChunkWire, TheLastOfSeveralDataFieldsCounts) {
  std::string bytes;
  for (const char* payload : {"first", "second, longer", "third"}) {
    v1::UploadChunksRequest message;
    message.set_contribution(1);
    message.set_data(payload);
    bytes += message.SerializeAsString();
  }
  absl::StatusOr<SplitMessage> split = SplitChunkMessage({bytes}, kMaxHead);
  ASSERT_TRUE(split.ok());
  v1::UploadChunksRequest read;
  ASSERT_TRUE(read.ParseFromString(bytes));
  EXPECT_EQ(read.data(), "third");
  EXPECT_EQ(Joined(split->data), "third");
  EXPECT_EQ(split->data_bytes, 5u);
}

TEST(ChunkWire, AnEmptyLastDataFieldClearsEarlierOnes) {
  v1::UploadChunksRequest message;
  message.set_data("first");
  const std::string bytes = message.SerializeAsString() + std::string("\x7a\x00", 2);
  absl::StatusOr<SplitMessage> split = SplitChunkMessage({bytes}, kMaxHead);
  ASSERT_TRUE(split.ok());
  EXPECT_TRUE(split->data.empty());
  EXPECT_EQ(split->data_bytes, 0u);
}

TEST(ChunkWire, AHeadBeyondTheLimitIsRefusedBeforeItIsCopied) {
  v1::UploadChunksRequest message;
  message.set_upload(std::string(2000, 'u'));
  message.set_data(std::string(100'000, 'x'));
  const std::string bytes = message.SerializeAsString();
  EXPECT_TRUE(SplitChunkMessage({bytes}, 2003).ok());
  EXPECT_EQ(SplitChunkMessage({bytes}, 2002).status().code(),
            absl::StatusCode::kInvalidArgument);
  // A length that is a lie: nothing near it is allocated.
  EXPECT_FALSE(
      SplitChunkMessage({std::string("\x0a\xef\xff\xff\xff\x07", 6)}, kMaxHead).ok());
}

// Protobuf's own verdict and content, field `data` apart.
template <typename Message>
void ExpectSameVerdict(const std::string& bytes, std::mt19937_64& random) {
  const google::protobuf::LogSilencer silencer;
  Message expected;
  const bool parses = expected.ParseFromString(bytes);
  const std::vector<absl::string_view> pieces = Cut(bytes, 1 + random() % 40, random);
  absl::StatusOr<SplitMessage> split = SplitChunkMessage(pieces, kMaxHead);
  Message read;
  const bool taken = split.ok() && read.ParseFromString(split->head);
  ASSERT_EQ(taken, parses) << testing::PrintToString(bytes) << split.status();
  if (!parses) return;
  read.set_data(Joined(split->data));
  ASSERT_EQ(read.SerializeAsString(), expected.SerializeAsString());
}

TEST(ChunkWire, EveryTruncationHasProtobufsVerdict) {
  std::mt19937_64 random(TestSeed());
  v1::SaveCheckpointRequest message = MakeSaveRequest(std::string(300, 'x'));
  auto* unknown = &Unknown(message);
  unknown->AddFixed64(102, 9);
  unknown->AddGroup(104)->AddVarint(1, 1 << 20);
  const std::string bytes = message.SerializeAsString();
  for (size_t size = 0; size <= bytes.size(); ++size) {
    ExpectSameVerdict<v1::SaveCheckpointRequest>(bytes.substr(0, size), random);
  }
}

TEST(ChunkWire, MalformedBytesHaveProtobufsVerdict) {
  std::mt19937_64 random(TestSeed());
  const std::vector<std::string> cases = {
      std::string("\x00", 1),  // field number 0
      std::string("\x00\x01", 2),
      std::string("\x02\x00", 2),       // field number 0, a string
      "\x0e",                           // wire type 6
      "\x0f",                           // wire type 7
      "\x0c",                           // end of no group
      "\x0b",                           // a group without end
      "\x0b\x0c",                       // an empty group
      "\x0b\x14",                       // ended by another number
      "\x7b\x7a\x01x\x7c",              // `data` within a group
      "\xfa\x80\x80\x80\x00\x01x",      // `data`, its tag in 5 bytes
      "\xfa\x80\x80\x80\x80\x00\x01x",  // in 6
      "\xfa\x80\x80\x80\x10\x01x",      // a tag beyond 32 bits
      "\x7a\x81\x80\x80\x80\x00x",      // a length in 5 bytes
      "\x7a\x81\x80\x80\x80\x80\x00x",  // in 6
      "\x7a\xff\xff\xff\xff\x07",       // 2^31 - 1
      "\x7a\xff\xff\xff\xff\x0f",       // 2^32 - 1
      "\x78\x01",                       // number 15 as a varint
      "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
      "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
      "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
  };
  for (const std::string& bytes : cases) {
    ExpectSameVerdict<v1::UploadChunksRequest>(bytes, random);
  }
  std::string deep;
  for (int depth = 98; depth <= 102; ++depth) {
    ExpectSameVerdict<v1::UploadChunksRequest>(
        std::string(depth, '\x6b') + std::string(depth, '\x6c'), random);
  }
}

// Mostly sound messages with fields in any order, repeated, unknown, and then a
// few bytes changed.
std::string RandomMessage(std::mt19937_64& random) {
  std::string bytes;
  for (int fields = random() % 8; fields > 0; --fields) {
    v1::UploadChunksRequest message;
    switch (random() % 6) {
      case 0:
        message.set_upload(std::string(random() % 50, 'u'));
        break;
      case 1:
        message.set_contribution(static_cast<int32_t>(random()));
        break;
      case 2:
        message.add_chunks()->set_size_bytes(
            static_cast<int64_t>(random() >> random() % 64));
        break;
      case 3:
        Unknown(message).AddVarint(1 + random() % 2000, random());
        break;
      case 4:
        Unknown(message).AddGroup(1 + random() % 20)->AddFixed32(1 + random() % 20, 7);
        break;
      default:
        message.set_data(std::string(random() % 300, 'x'));
    }
    bytes += message.SerializeAsString();
  }
  for (int changes = random() % 3; changes > 0 && !bytes.empty(); --changes) {
    bytes[random() % bytes.size()] = static_cast<char>(random());
  }
  return bytes;
}

TEST(ChunkWire, RandomMessagesHaveProtobufsVerdictAndContent) {
  std::mt19937_64 random(TestSeed());
  for (int i = 0; i < 20'000; ++i) {
    ExpectSameVerdict<v1::UploadChunksRequest>(RandomMessage(random), random);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace modelstore
