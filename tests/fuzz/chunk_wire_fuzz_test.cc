// Damaged chunk messages, in fragments cut anywhere: what protobuf takes is taken
// with the same content, and everything else is refused.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/unknown_field_set.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/chunk_wire.h"
#include "tests/fuzz/mutator.h"
#include "tests/support/seed.h"

namespace modelstore {
namespace {

constexpr size_t kMaxHead = 1 << 20;

template <typename Message>
std::vector<std::string> Corpus() {
  std::vector<std::string> corpus = {""};
  for (size_t size : {0, 1, 40, 127, 128, 300}) {
    Message message;
    for (int i = 0; i < 3; ++i) {
      message.add_chunks()->set_size_bytes(static_cast<int64_t>(size) << 8 * i);
      message.mutable_chunks(i)->set_digest(std::string(16, static_cast<char>('a' + i)));
    }
    message.set_data(std::string(size, 'x'));
    corpus.push_back(message.SerializeAsString());
    auto* unknown = message.GetReflection()->MutableUnknownFields(&message);
    unknown->AddFixed32(900, 1);
    unknown->AddFixed64(901, 2);
    unknown->AddLengthDelimited(16, "text");
    auto* group = unknown->AddGroup(902);
    group->AddVarint(1, ~uint64_t{0});
    group->AddGroup(2)->AddLengthDelimited(kChunkDataField, "not data");
    corpus.push_back(message.SerializeAsString());
    corpus.push_back(corpus.back() + corpus[1]);
  }
  return corpus;
}

std::vector<absl::string_view> Cut(absl::string_view bytes, Mutator& mutator) {
  std::vector<absl::string_view> fragments;
  const size_t largest = size_t{1} << mutator.Below(9);
  while (!bytes.empty()) {
    fragments.push_back(bytes.substr(0, mutator.Below(largest + 1)));
    bytes.remove_prefix(fragments.back().size());
  }
  return fragments;
}

template <typename Message>
void CompareWithProtobuf(int64_t iterations) {
  const google::protobuf::LogSilencer silencer;
  Mutator mutator(TestSeed(), Corpus<Message>());
  int64_t taken = 0;
  for (int64_t i = 0; i < iterations; ++i) {
    const std::string bytes = mutator.Next();
    Message expected, read;
    const bool parses = expected.ParseFromString(bytes);
    absl::StatusOr<SplitMessage> split = SplitChunkMessage(Cut(bytes, mutator), kMaxHead);
    const bool ours = split.ok() && read.ParseFromString(split->head);
    ASSERT_EQ(ours, parses) << "input " << i << ": " << testing::PrintToString(bytes);
    if (!ours) continue;
    ++taken;
    std::string data;
    for (absl::string_view view : split->data) data.append(view.data(), view.size());
    ASSERT_EQ(data.size(), split->data_bytes) << "input " << i;
    read.set_data(data);
    ASSERT_EQ(read.SerializeAsString(), expected.SerializeAsString()) << "input " << i;
  }
  // Both verdicts must have been tried.
  EXPECT_GT(taken, iterations / 20);
  EXPECT_LT(taken, iterations - iterations / 20);
}

TEST(FuzzChunkWire, DamagedUploadRequestsHaveProtobufsVerdict) {
  CompareWithProtobuf<v1::UploadChunksRequest>(FuzzIterations(60'000));
}

TEST(FuzzChunkWire, DamagedSaveRequestsHaveProtobufsVerdict) {
  CompareWithProtobuf<v1::SaveCheckpointRequest>(FuzzIterations(60'000));
}

TEST(FuzzChunkWire, DamagedLoadResponsesHaveProtobufsVerdict) {
  CompareWithProtobuf<v1::LoadCheckpointResponse>(FuzzIterations(60'000));
}

TEST(FuzzChunkWire, AHeadIsNeverLargerThanItsLimit) {
  Mutator mutator(TestSeed(), Corpus<v1::UploadChunksRequest>());
  for (int64_t i = FuzzIterations(60'000); i > 0; --i) {
    const std::string bytes = mutator.Next();
    const size_t limit = mutator.Below(80);
    absl::StatusOr<SplitMessage> split = SplitChunkMessage(Cut(bytes, mutator), limit);
    if (split.ok()) {
      ASSERT_LE(split->head.size(), limit);
    }
  }
}

}  // namespace
}  // namespace modelstore
