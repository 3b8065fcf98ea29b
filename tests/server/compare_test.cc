// CompareCheckpoints: what differs, told by digests where they tell, else read; and
// by how much, compared with a plain computation.
#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "proto/contract/limits.h"
#include "tests/server/harness.h"
#include "tests/support/plain_difference.h"
#include "tests/support/seed.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Response = v1::CompareCheckpointsResponse;
using Difference = Response::TensorDifference;

const std::string kCompare = absl::StrCat(kStore, "CompareCheckpoints");
constexpr int64_t kMiB = 1 << 20;

struct Verdict {
  std::vector<Difference> differences;
  std::vector<Response::Progress> progress;
  Response::Result result;
  size_t longest_message = 0;

  std::vector<std::string> Kinds() const {
    std::vector<std::string> kinds;
    for (const Difference& d : differences) {
      kinds.push_back(absl::StrCat(
          d.tensor(), " ", absl::StripPrefix(Difference::Kind_Name(d.kind()), "KIND_")));
    }
    return kinds;
  }
};

// A tensor of `rows` rows in pieces of so many rows, each in chunks of its own size.
TestTensor InPieces(const std::string& key, v1::DType dtype, int64_t rows,
                    const std::string& bytes,
                    const std::vector<std::pair<int64_t, int64_t>>& pieces) {
  TestTensor made = MakeTensor(key, dtype, {rows}, bytes);
  made.chunks.clear();
  made.tensor.clear_pieces();
  const int64_t row_bytes = static_cast<int64_t>(bytes.size()) / rows;
  int64_t row = 0;
  for (const auto& [count, chunk_bytes] : pieces) {
    v1::Piece* piece = made.tensor.add_pieces();
    piece->add_offset(row);
    piece->add_size(count);
    piece->set_chunk_size_bytes(chunk_bytes);
    const std::string part = bytes.substr(row * row_bytes, count * row_bytes);
    for (size_t at = 0; at < part.size(); at += static_cast<size_t>(chunk_bytes)) {
      made.chunks.push_back(part.substr(at, static_cast<size_t>(chunk_bytes)));
      piece->mutable_chunk_digests()->append(DigestOf(made.chunks.back()));
    }
    row += count;
  }
  return made;
}

class CompareTest : public testing::Test {
 protected:
  void Save(const std::string& model, const std::vector<TestTensor>& tensors) {
    auto saved = harness_.SaveTensors(absl::StrCat("models/", model), tensors);
    ASSERT_TRUE(saved.ok()) << saved.status();
  }

  absl::StatusOr<Verdict> Compare(const std::string& model, const std::string& other,
                                  bool with_norms = false) {
    request_.set_name(absl::StrCat("models/", model, "/checkpoints/latest"));
    request_.set_other(absl::StrCat("models/", other, "/checkpoints/latest"));
    request_.set_with_norms(with_norms);
    auto responses = harness_.Stream<Response>(kCompare, request_);
    if (!responses.ok()) return responses.status();
    Verdict verdict;
    for (size_t i = 0; i < responses->size(); ++i) {
      const Response& r = (*responses)[i];
      verdict.longest_message = std::max(verdict.longest_message, r.ByteSizeLong());
      if (r.has_progress()) verdict.progress.push_back(r.progress());
      for (const auto& d : r.differences().tensors()) verdict.differences.push_back(d);
      EXPECT_EQ(r.has_result(), i + 1 == responses->size()) << "the result is the last";
      if (r.has_result()) verdict.result = r.result();
    }
    return verdict;
  }

  Harness harness_;
  std::mt19937_64 random_{TestSeed()};
  v1::CompareCheckpointsRequest request_;
};

TEST_F(CompareTest, KeysShapesTypesAndContentAreReportedInTableOrder) {
  const std::string bytes = MakeBytes(64, 1);
  Save("a", {MakeTensor("same", v1::DTYPE_FLOAT32, {16}, bytes),
             MakeTensor("content", v1::DTYPE_FLOAT32, {16}, bytes),
             MakeTensor("gone", v1::DTYPE_UINT8, {64}, bytes),
             MakeTensor("shape", v1::DTYPE_FLOAT32, {4, 4}, bytes),
             MakeTensor("dtype", v1::DTYPE_INT32, {16}, bytes),
             MakeTensor("empty", v1::DTYPE_INT64, {0, 3}, "")});
  Save("b", {MakeTensor("new", v1::DTYPE_UINT8, {64}, bytes),
             MakeTensor("empty", v1::DTYPE_INT64, {0, 3}, ""),
             MakeTensor("dtype", v1::DTYPE_FLOAT32, {16}, bytes),
             MakeTensor("shape", v1::DTYPE_FLOAT32, {16}, bytes),
             MakeTensor("content", v1::DTYPE_FLOAT32, {16}, MakeBytes(64, 2)),
             MakeTensor("same", v1::DTYPE_FLOAT32, {16}, bytes)});
  auto verdict = Compare("a", "b");
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->Kinds(),
              ElementsAre("model:content CONTENT", "model:gone REMOVED",
                          "model:shape SHAPE", "model:dtype DTYPE", "model:new ADDED"));
  EXPECT_THAT(verdict->differences[2].shape(), ElementsAre(4, 4));
  EXPECT_THAT(verdict->differences[2].other_shape(), ElementsAre(16));
  EXPECT_EQ(verdict->differences[3].dtype(), v1::DTYPE_INT32);
  EXPECT_EQ(verdict->differences[3].other_dtype(), v1::DTYPE_FLOAT32);
  EXPECT_EQ(verdict->differences[1].other_dtype(), v1::DTYPE_UNSPECIFIED);
  EXPECT_EQ(verdict->differences[4].dtype(), v1::DTYPE_UNSPECIFIED);
  EXPECT_FALSE(verdict->differences[0].has_norm()) << "not asked for";
  const Response::Result& result = verdict->result;
  EXPECT_EQ(result.checkpoint(), "models/a/checkpoints/1");
  EXPECT_EQ(result.other(), "models/b/checkpoints/1");
  EXPECT_FALSE(result.identical());
  EXPECT_EQ(result.equal_tensors(), 2);
  EXPECT_EQ(result.different_tensors(), 3);
  EXPECT_EQ(result.added_tensors(), 1);
  EXPECT_EQ(result.removed_tensors(), 1);
  EXPECT_EQ(verdict->progress.back().total_bytes(), 0) << "nothing was read";
}

TEST_F(CompareTest, ACheckpointIsIdenticalToItselfAndToAnotherOfTheSameContent) {
  const std::vector<TestTensor> tensors = {
      MakeTensor("w", v1::DTYPE_FLOAT32, {16}, MakeBytes(64, 1)),
      MakeTensor("step", v1::DTYPE_INT64, {}, MakeBytes(8, 2))};
  Save("a", tensors);
  Save("b", tensors);
  for (const std::string other : {"a", "b"}) {
    auto verdict = Compare("a", other, true);
    ASSERT_TRUE(verdict.ok()) << verdict.status();
    EXPECT_TRUE(verdict->result.identical());
    EXPECT_THAT(verdict->differences, IsEmpty());
    EXPECT_EQ(verdict->result.equal_tensors(), 2);
  }
}

TEST_F(CompareTest, EqualBytesThatAreCutDifferentlyAreEqual) {
  const std::string bytes = MakeBytes(2 * kMiB, 1);
  const int64_t rows = kMiB / 2;
  std::string changed = bytes;
  changed[kMiB + 12345] ^= 1;
  const auto cut = [&](const std::string& content, int variant) {
    switch (variant) {
      case 0:
        return InPieces("w", v1::DTYPE_FLOAT32, rows, content, {{rows, 256 << 10}});
      case 1:
        return InPieces("w", v1::DTYPE_FLOAT32, rows, content, {{rows, 100'000}});
      default:  // two workers, the second with shorter chunks
        return InPieces("w", v1::DTYPE_FLOAT32, rows, content,
                        {{100'001, 256 << 10}, {rows - 100'001, 4096 * 7}});
    }
  };
  for (int v = 0; v < 3; ++v) {
    Save(absl::StrCat("cut", v), {cut(bytes, v)});
    Save(absl::StrCat("changed", v), {cut(changed, v)});
  }
  const float* before = reinterpret_cast<const float*>(bytes.data());
  const float* after = reinterpret_cast<const float*>(changed.data());
  const size_t at = (kMiB + 12345) / 4;
  for (int v = 0; v < 3; ++v) {
    for (int w = 0; w < 3; ++w) {
      SCOPED_TRACE(absl::StrCat(v, " and ", w));
      for (const bool norms : {false, true}) {
        auto same = Compare(absl::StrCat("cut", v), absl::StrCat("cut", w), norms);
        ASSERT_TRUE(same.ok()) << same.status();
        EXPECT_THAT(same->Kinds(), IsEmpty());
        EXPECT_EQ(same->result.equal_tensors(), 1);
        EXPECT_EQ(same->progress.back().compared_bytes(), v == w ? 0 : 2 * kMiB);
        auto other = Compare(absl::StrCat("cut", v), absl::StrCat("changed", w), norms);
        ASSERT_TRUE(other.ok()) << other.status();
        EXPECT_THAT(other->Kinds(), ElementsAre("model:w CONTENT"));
        EXPECT_EQ(other->progress.back().compared_bytes(),
                  other->progress.back().total_bytes());
        if (!norms) continue;
        EXPECT_EQ(other->differences[0].differing_elements() +
                      other->differences[0].nan_differences(),
                  1);
        if (!std::isnan(before[at]) && !std::isnan(after[at])) {
          EXPECT_EQ(other->differences[0].max_abs_difference(),
                    std::fabs(static_cast<double>(before[at]) - after[at]));
        }
      }
    }
  }
}

TEST_F(CompareTest, FiguresOfEveryTypeAreThoseOfAPlainComputation) {
  // Two pieces, chunks cut differently on the two sides.
  constexpr int64_t kCount = 3001;
  std::vector<TestTensor> first, other, cast;
  std::vector<support::PlainDifference> plain, plain_cast;
  for (const DType dtype : support::AllTypes()) {
    const auto wire = static_cast<v1::DType>(dtype);
    const std::string key(DTypeName(dtype));
    const int64_t size = ElementSize(dtype);
    const std::string a = support::Elements(dtype, kCount, random_);
    std::string b = a;
    // A third of it differs.
    const std::string fresh = support::Elements(dtype, kCount / 3, random_);
    b.replace(1000 * size, fresh.size(), fresh);
    first.push_back(InPieces(key, wire, kCount, a, {{kCount, 512 * size}}));
    other.push_back(
        InPieces(key, wire, kCount, b, {{1700, 512 * size}, {1301, 100 * size}}));
    plain.push_back(support::ComputeDifference(dtype, a, dtype, b));
    const DType target = dtype == DType::kFloat32 ? DType::kFloat64 : DType::kFloat32;
    const std::string c = support::Elements(target, kCount, random_);
    cast.push_back(InPieces(key, static_cast<v1::DType>(target), kCount, c,
                            {{kCount, 300 * ElementSize(target)}}));
    plain_cast.push_back(support::ComputeDifference(dtype, a, target, c));
  }
  Save("a", first);
  Save("b", other);
  Save("c", cast);
  const auto expect = [&](const std::string& model, const std::string& kind,
                          const std::vector<support::PlainDifference>& expected) {
    auto verdict = Compare("a", model, true);
    ASSERT_TRUE(verdict.ok()) << verdict.status();
    ASSERT_EQ(verdict->differences.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      const Difference& d = verdict->differences[i];
      SCOPED_TRACE(verdict->Kinds()[i]);
      EXPECT_EQ(Difference::Kind_Name(d.kind()), kind);
      EXPECT_EQ(d.differing_elements(), expected[i].differing);
      EXPECT_EQ(d.nan_differences(), expected[i].nan);
      EXPECT_DOUBLE_EQ(d.max_abs_difference(), expected[i].max_abs);
      const auto near = [](double actual, double squares) {
        if (std::isinf(squares) || squares == 0) {
          EXPECT_EQ(actual, std::sqrt(squares));
        } else {
          EXPECT_NEAR(actual / std::sqrt(squares), 1, 1e-12);
        }
      };
      near(d.difference_norm(), expected[i].difference_squares);
      near(d.norm(), expected[i].squares);
    }
  };
  expect("b", "KIND_CONTENT", plain);
  expect("c", "KIND_DTYPE", plain_cast);
}

TEST_F(CompareTest, TiedTensorsAreComparedByTheBytesTheyShare) {
  const auto tied = [](TestTensor t, const std::string& to) {
    t.tensor.clear_pieces();
    t.tensor.set_tied_to(to);
    return t;
  };
  const std::string bytes = MakeBytes(64, 1), others = MakeBytes(64, 2);
  Save("a", {MakeTensor("w", v1::DTYPE_UINT8, {64}, bytes),
             tied(MakeTensor("tied", v1::DTYPE_UINT8, {64}, ""), "model:w")});
  Save("b", {MakeTensor("w", v1::DTYPE_UINT8, {64}, bytes),
             MakeTensor("tied", v1::DTYPE_UINT8, {64}, bytes)});
  Save("c", {MakeTensor("w", v1::DTYPE_UINT8, {64}, others),
             tied(MakeTensor("tied", v1::DTYPE_UINT8, {64}, ""), "model:w")});
  auto untied = Compare("a", "b", true);
  ASSERT_TRUE(untied.ok()) << untied.status();
  EXPECT_THAT(untied->Kinds(), IsEmpty());
  auto changed = Compare("b", "c", true);
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_THAT(changed->Kinds(), ElementsAre("model:w CONTENT", "model:tied CONTENT"));
  EXPECT_EQ(changed->differences[0].max_abs_difference(),
            changed->differences[1].max_abs_difference());
}

TEST_F(CompareTest, SectionsAndArchitecturesThatDifferAreNamed) {
  const auto save = [&](const std::string& model, double lr, bool with_section,
                        const std::string& type) {
    std::vector<v1::SaveCheckpointRequest> requests(2);
    requests[0].set_parent(absl::StrCat("models/", model));
    requests[0].set_create_model(true);
    const TestTensor w = MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 1));
    *requests[0].mutable_manifest()->add_tensors() = w.tensor;
    v1::Section* rates = requests[0].mutable_manifest()->add_sections();
    rates->set_name("hyperparameters");
    rates->mutable_value()->set_double_value(lr);
    if (with_section) {
      v1::Section* extra = requests[0].mutable_manifest()->add_sections();
      extra->set_name("extra");
      extra->mutable_value()->set_int_value(1);
    }
    requests[0].mutable_checkpoint()->mutable_architecture()->mutable_root()->set_type(
        type);
    AddChunk(&requests[0], w.bytes);
    requests[1].set_finish(true);
    auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
  };
  save("a", 0.1, false, "Linear");
  save("b", 0.1, false, "Linear");
  save("c", 0.2, true, "Conv2d");
  auto same = Compare("a", "b");
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_THAT(same->result.different_sections(), IsEmpty());
  EXPECT_FALSE(same->result.different_architecture());
  auto different = Compare("a", "c");
  ASSERT_TRUE(different.ok()) << different.status();
  EXPECT_THAT(different->result.different_sections(),
              ElementsAre("extra", "hyperparameters"));
  EXPECT_TRUE(different->result.different_architecture());
  request_.mutable_selection()->add_sections("extra");
  different = Compare("a", "c");
  ASSERT_TRUE(different.ok()) << different.status();
  EXPECT_THAT(different->result.different_sections(), ElementsAre("extra"));
}

TEST_F(CompareTest, ManyDifferencesComeInMessagesOfAtMostOneMebibyte) {
  std::vector<TestTensor> many;
  const std::string longest(500, 'k');
  for (int i = 0; i < 6000; ++i) {
    many.push_back(MakeTensor(absl::StrCat(longest, i), v1::DTYPE_UINT8, {1, 0}, ""));
  }
  // A manifest travels in parts of at most 1 MiB too.
  std::vector<v1::SaveCheckpointRequest> requests;
  for (size_t i = 0; i < many.size(); ++i) {
    if (i % 1000 == 0) {
      requests.emplace_back();
      if (i == 0) {
        requests.back().set_parent("models/many");
        requests.back().set_create_model(true);
      }
    }
    *requests.back().mutable_manifest()->add_tensors() = many[i].tensor;
  }
  requests.emplace_back().set_finish(true);
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();
  Save("few", {MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 1))});
  auto verdict = Compare("many", "few");
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_EQ(verdict->differences.size(), 6001u);
  EXPECT_EQ(verdict->result.removed_tensors(), 6000);
  EXPECT_EQ(verdict->result.added_tensors(), 1);
  EXPECT_LE(verdict->longest_message, static_cast<size_t>(kMaxManifestMessageBytes));
}

TEST_F(CompareTest, DamageOfWhatIsReadEndsItInTheTensorsName) {
  const std::string bytes = MakeBytes(2 * kMiB, 1);
  Save("a", {MakeTensor("w", v1::DTYPE_UINT8, {2 * kMiB}, bytes, kMiB),
             MakeTensor("v", v1::DTYPE_UINT8, {kMiB}, MakeBytes(kMiB, 2), kMiB)});
  Save("b", {MakeTensor("w", v1::DTYPE_UINT8, {2 * kMiB}, MakeBytes(2 * kMiB, 3), kMiB),
             MakeTensor("v", v1::DTYPE_UINT8, {kMiB}, MakeBytes(kMiB, 2), kMiB)});
  harness_.Damage("b", 1, "w", 1);
  EXPECT_THAT(Compare("a", "b", true), FailsWith(absl::StatusCode::kDataLoss,
                                                 "model:w of models/b/checkpoints/1"));
  auto by_digest = Compare("a", "b");
  ASSERT_TRUE(by_digest.ok()) << by_digest.status();
  EXPECT_THAT(by_digest->Kinds(), ElementsAre("model:w CONTENT"));
}

TEST_F(CompareTest, TheSelectionAppliesToBothSidesAndAKeyMayBeOnOneOnly) {
  Save("a", {MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 1))});
  Save("b", {MakeTensor("v", v1::DTYPE_UINT8, {8}, MakeBytes(8, 2))});
  request_.mutable_selection()->add_include_patterns("v");
  auto verdict = Compare("a", "b");
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->Kinds(), ElementsAre("model:v ADDED"));
  request_.mutable_selection()->set_include_patterns(0, "nothing");
  EXPECT_THAT(Compare("a", "b"),
              FailsWith(absl::StatusCode::kNotFound,
                        "\"nothing\" matches no tensor of models/a/checkpoints/1 or "
                        "models/b/checkpoints/1"));
  request_.mutable_selection()->add_sections("none");
  EXPECT_THAT(Compare("a", "b"), FailsWith(absl::StatusCode::kNotFound,
                                           "no section none in models/a/checkpoints/1 or "
                                           "models/b/checkpoints/1"));
  request_.mutable_selection()->clear_sections();
  request_.mutable_selection()->set_include_patterns(0, "(");
  EXPECT_THAT(Compare("a", "b"), FailsWith(absl::StatusCode::kInvalidArgument,
                                           "selection.include_patterns[0]"));
  request_.clear_selection();
  EXPECT_THAT(Compare("a", "none"),
              FailsWith(absl::StatusCode::kNotFound, "models/none"));
}

TEST_F(CompareTest, KeysSelectOnBothSidesAndMayBeOnOneOnly) {
  Save("a", {MakeTensor("w.0", v1::DTYPE_UINT8, {8}, MakeBytes(8, 1))});
  Save("b", {MakeTensor("wx0", v1::DTYPE_UINT8, {8}, MakeBytes(8, 2)),
             MakeTensor("v", v1::DTYPE_UINT8, {8}, MakeBytes(8, 3))});
  request_.mutable_selection()->add_keys("w.0");
  request_.mutable_selection()->add_keys("v");
  auto verdict = Compare("a", "b");
  ASSERT_TRUE(verdict.ok()) << verdict.status();
  EXPECT_THAT(verdict->Kinds(), ElementsAre("model:w.0 REMOVED", "model:v ADDED"));
  request_.mutable_selection()->add_keys("none");
  EXPECT_THAT(
      Compare("a", "b"),
      FailsWith(absl::StatusCode::kNotFound,
                "\"model:none\" in the selected sections of models/a/checkpoints/1 or "
                "models/b/checkpoints/1"));
}

TEST_F(CompareTest, ACancelledCallEndsAtItsNextStep) {
  Save("a", {MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 1))});
  request_.set_name("models/a/checkpoints/1");
  request_.set_other("models/a/checkpoints/1");
  int steps = 0;
  auto responses = harness_.Stream<Response>(kCompare, request_, [&](OutboundSession& s) {
    if (++steps == 2) s.Cancel();
    return steps > 3;
  });
  EXPECT_EQ(responses.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace modelstore::server
