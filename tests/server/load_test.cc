// LoadCheckpoint: the plan, and the bytes for any selection of them.
#include <algorithm>
#include <cstring>
#include <limits>
#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/limits.h"
#include "proto/contract/numeric.h"
#include "tests/server/harness.h"
#include "tests/support/seed.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;

// Two sections; chunks small and large; an empty tensor, a 0-dim one, a tie.
class LoadTest : public testing::Test {
 protected:
  void SetUp() override {
    tensors_ = {
        MakeTensor("a.weight", v1::DTYPE_FLOAT32, {10, 25}, MakeBytes(1000, 1), 200),
        MakeTensor("a.bias", v1::DTYPE_FLOAT32, {25}, MakeBytes(100, 2)),
        MakeTensor("a.empty", v1::DTYPE_INT64, {0, 4}, ""),
        MakeTensor("b.weight", v1::DTYPE_UINT8, {9 << 20}, MakeBytes(9 << 20, 3),
                   1 << 20),
        MakeTensor("b.steps", v1::DTYPE_INT64, {}, MakeBytes(8, 4)),
        MakeTensor("b.tied", v1::DTYPE_FLOAT32, {10, 25}, ""),
        MakeTensor("state/0/exp_avg", v1::DTYPE_FLOAT32, {25}, MakeBytes(100, 5)),
    };
    v1::Tensor& tied = tensors_[5].tensor;
    tied.clear_pieces();
    tied.set_tied_to("model:a.weight");
    tensors_[6].tensor.set_section("optimizer");
    auto saved = harness_.SaveTensors("models/m", tensors_);
    ASSERT_TRUE(saved.ok()) << saved.status();
    for (const TestTensor& t : tensors_) all_ += t.bytes;
    request_.set_name("models/m/checkpoints/latest");
  }

  std::vector<std::string> Keys(const Loaded& loaded) {
    std::vector<std::string> keys;
    for (const auto& tensor : loaded.plan.tensors()) keys.push_back(tensor.key());
    return keys;
  }

  Harness harness_;
  std::vector<TestTensor> tensors_;
  std::string all_;
  v1::LoadCheckpointRequest request_;
};

TEST_F(LoadTest, EveryByteComesInTableOrderAfterAPlanThatAnnouncesIt) {
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->bytes, all_);
  EXPECT_EQ(loaded->plan.total_bytes(), static_cast<int64_t>(all_.size()));
  EXPECT_EQ(loaded->plan.bytes_by_device().at("cpu"), loaded->plan.total_bytes());
  EXPECT_TRUE(loaded->plan.complete());
  EXPECT_EQ(loaded->plan.checkpoint().name(), "models/m/checkpoints/1");
  ASSERT_EQ(loaded->plan.tensors_size(), 7);
  EXPECT_EQ(loaded->plan.tensors(5).tied_to(), "model:a.weight");
  EXPECT_EQ(loaded->plan.tensors(5).size_bytes(), 0);
  EXPECT_THAT(loaded->plan.tensors(0).shape(), ElementsAre(10, 25));
}

TEST_F(LoadTest, MessagesDoubleUpToTheLimitOfTheClient) {
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  // The plan; what comes before b.weight; of its nine chunks of 1 MiB one, one, one,
  // two and three; the last one and what follows.
  EXPECT_EQ(loaded->messages, 1 + 1 + 5 + 1);
  EXPECT_GT(loaded->longest_message, size_t{3} << 20);
  EXPECT_LE(loaded->longest_message, static_cast<size_t>(kMaxAnswerBytes));

  // Four of the chunks in the largest message.
  request_.set_max_message_bytes(kMaxMessageBytes);
  loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_GT(loaded->longest_message, static_cast<size_t>(kMaxAnswerBytes));
  EXPECT_LE(loaded->longest_message, static_cast<size_t>(kMaxMessageBytes));
  EXPECT_TRUE(loaded->bytes == all_);
}

TEST_F(LoadTest, ALimitBeyondTheBoundsMeansTheNearestBound) {
  for (const int64_t limit :
       {int64_t{-1}, int64_t{1}, std::numeric_limits<int64_t>::max()}) {
    request_.set_max_message_bytes(limit);
    auto loaded = harness_.Load(request_);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_LE(loaded->longest_message,
              static_cast<size_t>(limit > 1 ? kMaxMessageBytes : kMaxAnswerBytes));
    EXPECT_TRUE(loaded->bytes == all_);
  }
}

TEST_F(LoadTest, AChunkOfFourMiBIsSentInEqualPartsUnlessTheClientAcceptsIt) {
  auto large = MakeTensor("w", v1::DTYPE_UINT8, {3 * kMaxChunkBytes},
                          MakeBytes(3 * kMaxChunkBytes, 8), kMaxChunkBytes);
  ASSERT_TRUE(harness_.SaveTensors("models/large", {large}).ok());
  request_.set_name("models/large/checkpoints/1");
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  // The first run of a load is short.
  EXPECT_EQ(loaded->runs, 1 + 3 * 2);
  EXPECT_LE(loaded->longest_message, static_cast<size_t>(kMaxAnswerBytes));
  EXPECT_TRUE(loaded->bytes == large.bytes);

  request_.set_max_message_bytes(kMaxMessageBytes);
  loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->runs, 1 + 3);
  EXPECT_TRUE(loaded->bytes == large.bytes);
}

TEST_F(LoadTest, PlanOnlyEndsAfterThePlan) {
  request_.set_plan_only(true);
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->bytes, "");
  EXPECT_EQ(loaded->plan.tensors_size(), 7);
}

TEST_F(LoadTest, AnyRangeOfTheSequenceResumesByTheToken) {
  request_.set_plan_only(true);
  auto plan = harness_.Load(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::mt19937_64 random(TestSeed());
  for (int i = 0; i < 60; ++i) {
    const size_t begin = random() % all_.size();
    const size_t end = begin + 1 + random() % (all_.size() - begin);
    v1::LoadCheckpointRequest part;
    part.set_name(request_.name());
    part.set_resume_token(plan->plan.resume_token());
    part.set_omit_plan(true);
    part.set_start_position(static_cast<int64_t>(begin));
    part.set_end_position(static_cast<int64_t>(end));
    auto loaded = harness_.Load(part);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->first_position, static_cast<int64_t>(begin));
    ASSERT_TRUE(loaded->bytes == all_.substr(begin, end - begin)) << begin << " " << end;
    EXPECT_EQ(loaded->plan.tensors_size(), 0);
  }
  v1::LoadCheckpointRequest part;
  part.set_name(request_.name());
  part.set_resume_token(plan->plan.resume_token());
  part.set_omit_plan(true);
  auto rest = harness_.Load(part);
  ASSERT_TRUE(rest.ok()) << rest.status();
  EXPECT_TRUE(rest->bytes == all_);
  part.set_end_position(0);
  auto none = harness_.Load(part);
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(none->bytes, "");
  part.set_start_position(1);
  EXPECT_THAT(harness_.Load(part),
              FailsWith(absl::StatusCode::kOutOfRange, "end_position 0"));
}

TEST_F(LoadTest, PrefixesPatternsAndSectionsSelect) {
  request_.mutable_selection()->add_include_prefixes("a.");
  request_.mutable_selection()->add_include_patterns("optimizer:.*");
  request_.mutable_selection()->add_exclude_patterns(".*bias");
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(Keys(*loaded), ElementsAre("a.weight", "a.empty", "state/0/exp_avg"));
  EXPECT_EQ(loaded->bytes, tensors_[0].bytes + tensors_[6].bytes);

  v1::LoadCheckpointRequest by_section;
  by_section.set_name(request_.name());
  by_section.mutable_selection()->add_sections("optimizer");
  loaded = harness_.Load(by_section);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(Keys(*loaded), ElementsAre("state/0/exp_avg"));
}

TEST_F(LoadTest, KeysSelectWholeKeysInAdditionToIncludes) {
  auto near = MakeTensor("axbias", v1::DTYPE_FLOAT32, {25}, MakeBytes(100, 9));
  tensors_.push_back(near);
  ASSERT_TRUE(harness_.SaveTensors("models/m", tensors_).ok());
  request_.mutable_selection()->add_keys("a.bias");
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(Keys(*loaded), ElementsAre("a.bias"));

  request_.mutable_selection()->add_keys("optimizer:state/0/exp_avg");
  request_.mutable_selection()->add_include_prefixes("b.");
  request_.mutable_selection()->add_exclude_patterns(".*weight");
  loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(Keys(*loaded),
              ElementsAre("a.bias", "b.steps", "b.tied", "state/0/exp_avg"));
}

TEST_F(LoadTest, UnknownKeysAreNotFoundByName) {
  const auto not_found = absl::StatusCode::kNotFound;
  for (const char* key : {"a.bias", "a.biass", "optimizer:a.bias", "a.b", "a.*"}) {
    request_.mutable_selection()->add_keys(key);
  }
  EXPECT_THAT(
      harness_.Load(request_),
      FailsWith(not_found,
                "selection.keys: no tensor \"model:a.*\", \"model:a.b\", "
                "\"model:a.biass\", \"optimizer:a.bias\" in the selected sections of "
                "models/m/checkpoints/1"));
  for (int i = 0; i < 10; ++i) {
    request_.mutable_selection()->add_keys(absl::StrCat("a", i));
  }
  EXPECT_THAT(harness_.Load(request_),
              FailsWith(not_found, " and 4 more in the selected sections"));
  request_.mutable_selection()->set_allow_unmatched(true);
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(Keys(*loaded), ElementsAre("a.bias"));
  for (int i = 0; i < 4096; ++i) request_.mutable_selection()->add_keys("a.bias");
  EXPECT_THAT(harness_.Load(request_),
              FailsWith(absl::StatusCode::kInvalidArgument, "selection"));
}

TEST_F(LoadTest, ATiedTensorReturnsTheBytesIfItsPartnerIsNotSelected) {
  request_.mutable_selection()->add_include_patterns("b.tied");
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->bytes, tensors_[0].bytes);
  EXPECT_EQ(loaded->plan.tensors(0).tied_to(), "");
  EXPECT_EQ(loaded->plan.tensors(0).size_bytes(), 1000);
}

TEST_F(LoadTest, RowSlicesReturnOnlyThoseRows) {
  v1::RowSlice* slice = request_.add_slices();
  slice->set_tensor("a.weight");
  slice->set_begin(3);
  slice->set_end(7);
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->Of("a.weight"), tensors_[0].bytes.substr(300, 400));
  EXPECT_THAT(loaded->plan.tensors(0).shape(), ElementsAre(4, 25));
  // Its partner is not sliced, and so brings all of its bytes.
  EXPECT_EQ(loaded->Of("b.tied"), tensors_[0].bytes);
  EXPECT_EQ(loaded->plan.tensors(5).tied_to(), "");
}

TEST_F(LoadTest, OnlyFloatingPointIsCastAndRangesMayCutAnElement) {
  request_.set_target_dtype(v1::DTYPE_FLOAT16);
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  std::string expected(500, '\0');
  ASSERT_TRUE(Cast(DType::kFloat32, tensors_[0].bytes.data(), DType::kFloat16,
                   expected.data(), 250)
                  .ok());
  EXPECT_EQ(loaded->Of("a.weight"), expected);
  EXPECT_EQ(loaded->plan.tensors(0).dtype(), v1::DTYPE_FLOAT16);
  EXPECT_EQ(loaded->Of("b.weight"), tensors_[3].bytes);
  EXPECT_EQ(loaded->Of("b.steps"), tensors_[4].bytes);

  v1::LoadCheckpointRequest part;
  part.set_name(request_.name());
  part.set_resume_token(loaded->plan.resume_token());
  part.set_omit_plan(true);
  part.set_start_position(101);
  part.set_end_position(307);
  auto cut = harness_.Load(part);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->bytes, expected.substr(101, 206));
}

TEST_F(LoadTest, ACastThatGrowsAChunkStaysWithinAMessage) {
  const int64_t count = kMaxChunkBytes / 2;
  auto half = MakeTensor("h", v1::DTYPE_FLOAT16, {count}, MakeBytes(kMaxChunkBytes, 9),
                         kMaxChunkBytes);
  ASSERT_TRUE(harness_.SaveTensors("models/h", {half}).ok());
  request_.set_name("models/h/checkpoints/1");
  request_.set_target_dtype(v1::DTYPE_FLOAT64);
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_LE(loaded->longest_message, static_cast<size_t>(kMaxAnswerBytes));
  std::string expected(count * 8, '\0');
  ASSERT_TRUE(
      Cast(DType::kFloat16, half.bytes.data(), DType::kFloat64, expected.data(), count)
          .ok());
  EXPECT_TRUE(loaded->bytes == expected);
}

TEST_F(LoadTest, AWholeStoredChunkIsSentWithItsStoredDigest) {
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  size_t chunks = 0;
  for (const TestTensor& t : tensors_) chunks += t.chunks.size();
  EXPECT_EQ(loaded->runs, static_cast<int>(chunks));
}

TEST_F(LoadTest, WhatDoesNotExistIsNamed) {
  auto with = [&](auto change) {
    v1::LoadCheckpointRequest request = request_;
    change(&request);
    return harness_.Load(request);
  };
  const auto not_found = absl::StatusCode::kNotFound;
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto range = absl::StatusCode::kOutOfRange;
  EXPECT_THAT(with([](auto* r) { r->set_name("models/x/checkpoints/1"); }),
              FailsWith(not_found, "models/x"));
  EXPECT_THAT(with([](auto* r) { r->set_name("models/m/checkpoints/2"); }),
              FailsWith(not_found, "models/m/checkpoints/2"));
  EXPECT_THAT(with([](auto* r) { r->set_name("models/m/checkpoints/best"); }),
              FailsWith(not_found, "best"));
  EXPECT_THAT(with([](auto* r) { r->mutable_selection()->add_sections("lr"); }),
              FailsWith(not_found, "lr"));
  EXPECT_THAT(
      with([](auto* r) { r->mutable_selection()->add_include_patterns("a.wieght"); }),
      FailsWith(not_found, "a.wieght"));
  EXPECT_THAT(with([](auto* r) { r->mutable_selection()->add_include_patterns("a("); }),
              FailsWith(invalid, "selection.include_patterns[0]"));
  EXPECT_THAT(with([](auto* r) { r->set_device("tpu:0"); }),
              FailsWith(invalid, "device"));
  EXPECT_THAT(with([](auto* r) { r->set_target_dtype(v1::DTYPE_INT32); }),
              FailsWith(invalid, "target_dtype"));
  EXPECT_THAT(with([](auto* r) { r->set_start_position(1LL << 62); }),
              FailsWith(range, "start_position"));
  EXPECT_THAT(with([](auto* r) { r->set_start_position(-1); }),
              FailsWith(range, "start_position"));
  EXPECT_THAT(with([](auto* r) { r->set_omit_plan(true); }),
              FailsWith(invalid, "omit_plan"));
  EXPECT_THAT(with([](auto* r) { r->set_resume_token("rubbish"); }),
              FailsWith(invalid, "resume_token"));
  EXPECT_THAT(with([](auto* r) {
                r->add_slices()->set_tensor("a.weight");
                r->mutable_slices(0)->set_end(11);
              }),
              FailsWith(range, "a.weight"));
  EXPECT_THAT(with([](auto* r) {
                r->add_slices()->set_tensor("b.steps");
                r->mutable_slices(0)->set_end(1);
              }),
              FailsWith(range, "b.steps"));
}

TEST_F(LoadTest, ATokenIsValidOnlyForItsCheckpoint) {
  ASSERT_TRUE(harness_.SaveTensors("models/m", {tensors_[1]}).ok());
  request_.set_name("models/m/checkpoints/1");
  auto first = harness_.Load(request_);
  ASSERT_TRUE(first.ok()) << first.status();
  v1::LoadCheckpointRequest other;
  other.set_name("models/m/checkpoints/2");
  other.set_resume_token(first->plan.resume_token());
  EXPECT_THAT(harness_.Load(other),
              FailsWith(absl::StatusCode::kInvalidArgument, "models/m/checkpoints/1"));
}

TEST_F(LoadTest, ATokenReadsADeletedCheckpoint) {
  request_.set_plan_only(true);
  auto plan = harness_.Load(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  v1::DeleteCheckpointRequest gone;
  gone.set_name("models/m/checkpoints/1");
  ASSERT_TRUE(harness_
                  .Call<v1::DeleteCheckpointResponse>(
                      absl::StrCat(kStore, "DeleteCheckpoint"), gone)
                  .ok());
  v1::LoadCheckpointRequest resumed;
  resumed.set_name("models/m/checkpoints/1");
  resumed.set_resume_token(plan->plan.resume_token());
  auto loaded = harness_.Load(resumed);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->bytes, all_);
}

TEST_F(LoadTest, APlanOfManyTensorsComesInPartsOfAtMostOneMebibyte) {
  std::vector<v1::SaveCheckpointRequest> requests(1);
  requests[0].set_parent("models/wide");
  requests[0].set_create_model(true);
  const std::string padding(900, 'k');
  for (int i = 0; i < 3000; ++i) {
    if (i % 700 == 699) requests.emplace_back();
    auto tensor = MakeTensor(absl::StrCat(padding, i), v1::DTYPE_UINT8, {0}, "");
    *requests.back().mutable_manifest()->add_tensors() = tensor.tensor;
  }
  requests.emplace_back().set_finish(true);
  ASSERT_TRUE(harness_.Save(requests).ok());
  request_.set_name("models/wide/checkpoints/latest");
  auto loaded = harness_.Load(request_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->plan.tensors_size(), 3000);
  EXPECT_GE(loaded->messages, 3);
  EXPECT_LE(loaded->longest_message, static_cast<size_t>(kMaxManifestMessageBytes));
}

// Two large sections around a small one; `bytes` of values in each large one.
v1::SaveCheckpointRequest WithLargeSections(const std::string& parent, size_t bytes) {
  v1::SaveCheckpointRequest request;
  request.set_parent(parent);
  request.set_create_model(true);
  request.set_finish(true);
  for (const char* name : {"extra", "lr", "optimizer"}) {
    v1::Section* section = request.mutable_manifest()->add_sections();
    section->set_name(name);
    const size_t size = section->name() == "lr" ? 10 : bytes;
    section->mutable_value()->set_bytes_value(MakeBytes(size, 3));
    section->mutable_metadata()->set_string_value(absl::StrCat("of ", name));
  }
  return request;
}

TEST_F(LoadTest, ALargeSectionOfAPlanComesInSlices) {
  for (const size_t bytes :
       {size_t{2} << 20, (size_t{1} << 20) - 5000, size_t{1} << 20}) {
    const auto saved = WithLargeSections("models/large", bytes);
    ASSERT_TRUE(harness_.Save({saved}).ok());
    request_.set_name("models/large/checkpoints/latest");
    auto loaded = harness_.Load(request_);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_TRUE(loaded->plan.complete());
    EXPECT_LE(loaded->longest_message, static_cast<size_t>(kMaxManifestMessageBytes));
    ASSERT_EQ(loaded->plan.sections_size(), 3);
    for (const auto& wanted : saved.manifest().sections()) {
      const auto& sections = loaded->plan.sections();
      const auto got = std::find_if(sections.begin(), sections.end(), [&](const auto& s) {
        return s.name() == wanted.name();
      });
      ASSERT_NE(got, sections.end());
      EXPECT_TRUE(got->value().bytes_value() == wanted.value().bytes_value()) << bytes;
      EXPECT_EQ(got->metadata().string_value(), wanted.metadata().string_value());
    }
  }
}

TEST_F(LoadTest, WholeChunksAreSentInPlaceAndPartsWithoutHoldingTheRest) {
  request_.mutable_selection()->add_keys("b.weight");
  auto read = harness_.store().reads().Open("m", storage::VersionName{});
  ASSERT_TRUE(read.ok()) << read.status();
  std::vector<storage::PinnedBytes> chunks;
  for (int64_t c = 0; c < 9; ++c) {
    auto chunk = (*read)->ReadChunk(3, 0, c);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    chunks.push_back(*std::move(chunk));
  }
  auto session = harness_.service().OpenOutbound(
      absl::StrCat(kTransfer, "LoadCheckpoint"), request_.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  int whole = 0, parts = 0;
  for (;;) {
    auto message = (*session)->Next();
    ASSERT_TRUE(message.ok()) << message.status();
    if (!message->has_value()) break;
    for (const storage::PinnedBytes& payload : (*message)->payloads) {
      const absl::string_view sent = payload.view();
      const bool in_place = std::any_of(
          chunks.begin(), chunks.end(), [&](const storage::PinnedBytes& chunk) {
            return sent.data() >= chunk.view().data() &&
                   sent.data() < chunk.view().data() + chunk.view().size();
          });
      EXPECT_EQ(in_place, sent.size() == size_t{1} << 20) << sent.size();
      ++(in_place ? whole : parts);
    }
  }
  EXPECT_EQ(whole, 8);
  EXPECT_EQ(parts, 2);
}

TEST_F(LoadTest, ACancelledLoadEnds) {
  auto session = harness_.service().OpenOutbound(
      absl::StrCat(kTransfer, "LoadCheckpoint"), request_.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE((*session)->Next().ok());
  (*session)->Cancel();
  EXPECT_EQ((*session)->Next().status().code(), absl::StatusCode::kCancelled);
}

TEST_F(LoadTest, AFlippedBitIsDataLossThatNamesTheTensor) {
  auto big =
      MakeTensor("layer.big", v1::DTYPE_UINT8, {2 << 20}, MakeBytes(2 << 20, 7), 1 << 20);
  ASSERT_TRUE(harness_.SaveTensors("models/flip", {big}).ok());
  auto record = harness_.store().checkpoints().Get("flip", 1);
  ASSERT_TRUE(record.ok()) << record.status();
  ASSERT_GE(record->packs_size(), 1);
  ASSERT_TRUE(harness_.disk().FlipBit(record->packs(0), 1, 12345));
  request_.set_name("models/flip/checkpoints/1");
  EXPECT_THAT(harness_.Load(request_),
              FailsWith(absl::StatusCode::kDataLoss, "layer.big"));
}

}  // namespace
}  // namespace modelstore::server
