// VerifyCheckpoint: every damaged tensor by name, none that is whole; figures of
// what is not finite; at its pace; ended when it is cancelled.
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Response = v1::VerifyCheckpointResponse;

const std::string kVerify = absl::StrCat(kStore, "VerifyCheckpoint");
constexpr int64_t kMiB = 1 << 20;

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

struct Verdict {
  std::vector<Response::Finding> findings;
  std::vector<Response::Progress> progress;
  Response::Result result;

  std::vector<std::string> Damaged() const {
    std::vector<std::string> names;
    for (const auto& f : findings) {
      if (!f.damage().empty()) names.push_back(f.tensor());
    }
    return names;
  }
};

class VerifyTest : public testing::Test {
 protected:
  void SetUp() override {
    const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
    tensors_ = {
        MakeTensor("a.weight", v1::DTYPE_FLOAT32, {kMiB / 4}, MakeBytes(kMiB, 1),
                   128 << 10),
        MakeTensor("a.empty", v1::DTYPE_INT64, {0, 4}, ""),
        MakeTensor("b.weight", v1::DTYPE_UINT8, {3 * kMiB}, MakeBytes(3 * kMiB, 3), kMiB),
        MakeTensor("b.scale", v1::DTYPE_FLOAT32, {6},
                   BytesOf<float>({1, nan, infinity, nan, 0, 2}), 8),
        MakeTensor("b.tied", v1::DTYPE_FLOAT32, {kMiB / 4}, ""),
        MakeTensor("step", v1::DTYPE_INT64, {}, MakeBytes(8, 4)),
    };
    // Finite throughout.
    std::vector<float> finite(kMiB / 4);
    for (size_t i = 0; i < finite.size(); ++i) finite[i] = static_cast<float>(i);
    tensors_[0] =
        MakeTensor("a.weight", v1::DTYPE_FLOAT32, {kMiB / 4}, BytesOf(finite), 128 << 10);
    v1::Tensor& tied = tensors_[4].tensor;
    tied.clear_pieces();
    tied.set_tied_to("model:a.weight");
    tensors_[5].tensor.set_section("optimizer");
    auto saved = harness_.SaveTensors("models/m", tensors_);
    ASSERT_TRUE(saved.ok()) << saved.status();
    for (const TestTensor& t : tensors_) total_ += static_cast<int64_t>(t.bytes.size());
    request_.set_name("models/m/checkpoints/latest");
  }

  absl::StatusOr<Verdict> Verify() {
    auto responses = harness_.Stream<Response>(kVerify, request_);
    if (!responses.ok()) return responses.status();
    Verdict verdict;
    for (size_t i = 0; i < responses->size(); ++i) {
      const Response& r = (*responses)[i];
      if (r.has_progress()) verdict.progress.push_back(r.progress());
      if (r.has_finding()) verdict.findings.push_back(r.finding());
      EXPECT_EQ(r.has_result(), i + 1 == responses->size()) << "the result is the last";
      if (r.has_result()) verdict.result = r.result();
    }
    return verdict;
  }

  Harness harness_;
  std::vector<TestTensor> tensors_;
  int64_t total_ = 0;
  v1::VerifyCheckpointRequest request_;
};

TEST_F(VerifyTest, AWholeCheckpointIsReadToTheLastByteAndHasNoFindings) {
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->findings, IsEmpty());
  EXPECT_EQ(verdict->result.checkpoint(), "models/m/checkpoints/1");
  EXPECT_EQ(verdict->result.verified_tensors(), 6);
  EXPECT_EQ(verdict->result.verified_bytes(), total_) << "tied bytes are read once";
  EXPECT_EQ(verdict->result.damaged_tensors(), 0);
  ASSERT_GE(verdict->progress.size(), 2u);
  EXPECT_EQ(verdict->progress.front().verified_bytes(), 0);
  EXPECT_EQ(verdict->progress.back().verified_bytes(), total_);
  EXPECT_EQ(verdict->progress.back().total_bytes(), total_);
}

TEST_F(VerifyTest, ExactlyTheDamagedTensorsAreNamedAndTheCallContinues) {
  harness_.Damage("m", 1, "b.weight", 0);
  harness_.Damage("m", 1, "b.weight", 2);
  harness_.Damage("m", 1, "b.scale", 1);
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->Damaged(), ElementsAre("model:b.weight", "model:b.scale"));
  EXPECT_EQ(verdict->findings[0].damaged_bytes(), 2 * kMiB);
  EXPECT_EQ(verdict->findings[0].damage(), "chunk 0 does not match its digest");
  EXPECT_EQ(verdict->findings[1].damaged_bytes(), 8);
  EXPECT_EQ(verdict->result.damaged_tensors(), 2);
  EXPECT_EQ(verdict->result.verified_tensors(), 6);
  EXPECT_EQ(verdict->result.verified_bytes(), total_);
}

TEST_F(VerifyTest, DamageIsReportedOfEachTensorThatSharesTheBytes) {
  harness_.Damage("m", 1, "a.weight", 3);
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->Damaged(), ElementsAre("model:a.weight", "model:b.tied"));
  EXPECT_EQ(verdict->result.damaged_tensors(), 2);
}

TEST_F(VerifyTest, DamagedChunksAreStoredAgainByTheNextSave) {
  harness_.Damage("m", 1, "b.weight", 1);
  harness_.Damage("m", 1, "a.weight", 3);
  ASSERT_TRUE(Verify().ok());
  auto stats =
      harness_.Call<v1::Stats>(absl::StrCat(kStore, "GetStats"), v1::GetStatsRequest());
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->damaged_chunks(), 2);
  auto saved = harness_.SaveTensors("models/m", tensors_);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->stored_bytes(), kMiB + (128 << 10));
  EXPECT_EQ(saved->damaged_base_bytes(), kMiB + (128 << 10));
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ(verdict->result.checkpoint(), "models/m/checkpoints/2");
  EXPECT_THAT(verdict->Damaged(), IsEmpty());
}

TEST_F(VerifyTest, ATiedTensorIsReadWhereItsPartnerIsNotSelected) {
  harness_.Damage("m", 1, "a.weight", 3);
  request_.mutable_selection()->add_include_patterns("b.tied");
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->Damaged(), ElementsAre("model:b.tied"));
  EXPECT_EQ(verdict->result.verified_bytes(), kMiB);
}

TEST_F(VerifyTest, NonFiniteElementsAreCountedOnRequestAndNotInDamagedChunks) {
  request_.mutable_selection()->add_exclude_patterns("b.weight");
  request_.set_count_non_finite(true);
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  ASSERT_EQ(verdict->findings.size(), 1u);
  EXPECT_EQ(verdict->findings[0].tensor(), "model:b.scale");
  EXPECT_EQ(verdict->findings[0].damage(), "");
  EXPECT_EQ(verdict->findings[0].nan_count(), 2);
  EXPECT_EQ(verdict->findings[0].infinity_count(), 1);
  EXPECT_EQ(verdict->result.nan_count(), 2);
  EXPECT_EQ(verdict->result.infinity_count(), 1);

  // Its second chunk holds the infinity and one of the NaN.
  harness_.Damage("m", 1, "b.scale", 1);
  verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ(verdict->result.nan_count(), 1);
  EXPECT_EQ(verdict->result.infinity_count(), 0);
  EXPECT_EQ(verdict->result.damaged_tensors(), 1);
}

TEST_F(VerifyTest, OnlyTheSelectionIsRead) {
  harness_.Damage("m", 1, "b.weight", 0);
  request_.mutable_selection()->add_sections("optimizer");
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ(verdict->result.verified_bytes(), 8);
  EXPECT_EQ(verdict->result.damaged_tensors(), 0);
}

TEST_F(VerifyTest, KeysSelectWhatIsRead) {
  request_.mutable_selection()->add_keys("b.scale");
  auto verdict = Verify();
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ(verdict->result.verified_tensors(), 1);
  request_.mutable_selection()->add_keys("bxscale");
  EXPECT_THAT(Verify(), FailsWith(absl::StatusCode::kNotFound, "\"model:bxscale\""));
}

TEST_F(VerifyTest, ItReadsNoFasterThanItsRateAndWaitsInShortSteps) {
  request_.set_max_bytes_per_second(8 * kMiB);
  const absl::Time begin = absl::Now();
  auto session = harness_.service().OpenOutbound(kVerify, request_.SerializeAsString());
  ASSERT_TRUE(session.ok()) << session.status();
  absl::Duration longest;
  int progress = 0;
  for (;;) {
    auto message = (*session)->Next();
    ASSERT_TRUE(message.ok()) << message.status();
    if (!message->has_value()) break;
    if ((*message)->again_after) {
      longest = std::max(longest, *(*message)->again_after);
      absl::SleepFor(*(*message)->again_after);
    } else {
      ++progress;
    }
  }
  // 4 MiB; the last step's wait is not waited for.
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(200));
  EXPECT_GT(longest, absl::ZeroDuration());
  EXPECT_LE(longest, absl::Milliseconds(250)) << "else cancelling takes as long";
}

TEST_F(VerifyTest, ACancelledCallEndsAtItsNextStep) {
  request_.set_max_bytes_per_second(1);
  int steps = 0;
  auto responses = harness_.Stream<Response>(kVerify, request_, [&](OutboundSession& s) {
    if (++steps == 4) s.Cancel();
    return steps > 5;
  });
  EXPECT_EQ(responses.status().code(), absl::StatusCode::kCancelled) << steps;
}

TEST_F(VerifyTest, ADeletedCheckpointIsVerifiedToItsEnd) {
  int steps = 0;
  auto responses = harness_.Stream<Response>(kVerify, request_, [&](OutboundSession&) {
    if (++steps == 2) {
      auto freed = harness_.store().checkpoints().Delete("m", 1, {});
      EXPECT_TRUE(freed.ok()) << freed.status();
    }
    return false;
  });
  ASSERT_TRUE(responses.ok()) << responses.status();
  EXPECT_EQ(responses->back().result().verified_bytes(), total_);
  EXPECT_EQ(responses->back().result().damaged_tensors(), 0);
}

TEST_F(VerifyTest, BadRequestsNameTheFieldOrWhatDoesNotExist) {
  request_.set_max_bytes_per_second(-1);
  EXPECT_THAT(Verify(),
              FailsWith(absl::StatusCode::kInvalidArgument, "max_bytes_per_second"));
  request_.set_max_bytes_per_second(0);
  request_.mutable_selection()->add_include_patterns("(");
  EXPECT_THAT(Verify(), FailsWith(absl::StatusCode::kInvalidArgument,
                                  "selection.include_patterns[0]"));
  request_.mutable_selection()->set_include_patterns(0, "nothing");
  EXPECT_THAT(Verify(), FailsWith(absl::StatusCode::kNotFound, "nothing"));
  request_.mutable_selection()->clear_include_patterns();
  request_.mutable_selection()->add_sections("nowhere");
  EXPECT_THAT(Verify(), FailsWith(absl::StatusCode::kNotFound, "sections/nowhere"));
  request_.set_name("models/m/checkpoints/7");
  EXPECT_THAT(Verify(), FailsWith(absl::StatusCode::kNotFound, "models/m/checkpoints/7"));
}

}  // namespace
}  // namespace modelstore::server
