// VerifyCheckpoint and CompareCheckpoints from the client's side: the reports, and a
// connection that is cut under them.
#include "modelstore/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore::support {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

class InspectTest : public testing::Test {
 protected:
  void SetUp() override {
    content_ = TensorSet({.seed = 3, .tensors = 6, .bytes = 3 << 20});
    auto saved = Save(client_, "models/m", content_);
    ASSERT_TRUE(saved.ok()) << saved.status();
    name_ = saved->name;
  }

  // Inverts a bit of the first chunk of the largest tensor; returns its name.
  std::string Damage() {
    auto read = store_.store().reads().Open("m", 1);
    EXPECT_TRUE(read.ok()) << read.status();
    std::string name;
    int64_t most = 0;
    const storage::records::PieceRecord* chosen = nullptr;
    for (const auto& tensor : (*read)->manifest().tensors()) {
      if (tensor.pieces_size() == 0) continue;
      const auto& piece = tensor.pieces(0);
      const int64_t size = piece.packs_size() * piece.chunk_size_bytes();
      if (size <= most) continue;
      most = size;
      chosen = &piece;
      name = tensor.section() + ":" + tensor.key();
    }
    EXPECT_TRUE(chosen != nullptr &&
                store_.disk().FlipBit(chosen->packs(0), chosen->sequences(0), 9));
    return name;
  }

  TestStore store_;
  Client client_ = store_.NewClient();
  TensorSet content_;
  std::string name_;
};

TEST_F(InspectTest, ACheckpointJustSavedIsIntact) {
  auto report = VerifyCheckpoint(client_, name_);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->intact());
  EXPECT_EQ(report->checkpoint, name_);
  EXPECT_EQ(report->verified_bytes, content_.total_bytes());
  EXPECT_EQ(report->verified_tensors, static_cast<int64_t>(content_.entries().size()));
  EXPECT_THAT(report->findings, IsEmpty());
}

TEST_F(InspectTest, DamageIsAFindingThatNamesTheTensor) {
  const std::string damaged = Damage();
  auto report = VerifyCheckpoint(client_, "models/m/checkpoints/latest");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->intact());
  ASSERT_EQ(report->findings.size(), 1u);
  EXPECT_EQ(report->findings[0].tensor, damaged);
  EXPECT_THAT(report->findings[0].damage, HasSubstr("does not match its digest"));
  EXPECT_GT(report->findings[0].damaged_bytes, 0);
  auto others = VerifyCheckpoint(client_, name_, {.selection = {.exclude = {damaged}}});
  ASSERT_TRUE(others.ok()) << others.status();
  EXPECT_TRUE(others->intact());
}

TEST_F(InspectTest, OnlyTheKeysNamedAreReadAndThoseThatAreAbsentAreReported) {
  const std::string damaged = Damage();
  auto report = VerifyCheckpoint(client_, name_, {.selection = {.keys = {damaged}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->verified_tensors, 1);
  EXPECT_EQ(report->damaged_tensors, 1);
  // A whole name and not a pattern.
  const absl::Status absent =
      VerifyCheckpoint(client_, name_, {.selection = {.keys = {"model:.*"}}}).status();
  EXPECT_TRUE(absl::IsNotFound(absent)) << absent;
  EXPECT_THAT(std::string(absent.message()), HasSubstr("model:.*"));
}

TEST_F(InspectTest, NonFiniteElementsAreCountedOnRequest) {
  TensorSet odd;
  odd.Add({.section = "model", .key = "w", .dtype = DType::kFloat32, .shape = {4}},
          Floats({1, std::nanf(""), INFINITY, -INFINITY}));
  auto saved = Save(client_, "models/odd", odd);
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto report = VerifyCheckpoint(client_, saved->name, {.count_non_finite = true});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->intact());
  EXPECT_EQ(report->nan_count, 1);
  EXPECT_EQ(report->infinity_count, 2);
  ASSERT_EQ(report->findings.size(), 1u);
  EXPECT_EQ(report->findings[0].damage, "");
}

TEST_F(InspectTest, AChangedTensorIsReportedWithItsMeasure) {
  TensorSet before, after;
  const TensorInfo w = {
      .section = "model", .key = "w", .dtype = DType::kFloat32, .shape = {2}};
  const TensorInfo bias = {
      .section = "model", .key = "bias", .dtype = DType::kFloat32, .shape = {1}};
  before.Add(w, Floats({3, 4}));
  before.Add(bias, Floats({1}));
  after.Add(w, Floats({3, 6}));
  ASSERT_TRUE(Save(client_, "models/c", before).ok());
  ASSERT_TRUE(Save(client_, "models/c", after).ok());
  auto report = CompareCheckpoints(client_, "models/c/checkpoints/1",
                                   "models/c/checkpoints/2", {.with_norms = true});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->identical);
  EXPECT_EQ(report->different_tensors, 1);
  EXPECT_EQ(report->removed_tensors, 1);
  ASSERT_EQ(report->differences.size(), 2u);
  const TensorDifference& changed = report->differences[0];
  EXPECT_EQ(changed.tensor, "model:w");
  EXPECT_EQ(changed.kind, DifferenceKind::kContent);
  EXPECT_THAT(changed.shape, ElementsAre(2));
  ASSERT_TRUE(changed.measure.has_value());
  EXPECT_EQ(changed.measure->max_abs_difference, 2);
  EXPECT_EQ(changed.measure->difference_norm, 2);
  EXPECT_EQ(changed.measure->norm, 5);
  EXPECT_EQ(changed.measure->differing_elements, 1);
  const TensorDifference& removed = report->differences[1];
  EXPECT_EQ(removed.kind, DifferenceKind::kRemoved);
  EXPECT_EQ(removed.dtype, DType::kFloat32);
  EXPECT_FALSE(removed.other_dtype.has_value());
  EXPECT_FALSE(removed.measure.has_value());
}

TEST_F(InspectTest, ACutConnectionStartsOverAndReportsEachFindingOnce) {
  const std::string damaged = Damage();
  for (int64_t cut = 1; cut <= 6; ++cut) {
    store_.connection().SetFaults({.cut_at = cut});
    auto report = VerifyCheckpoint(client_, name_);
    ASSERT_TRUE(report.ok()) << cut << ": " << report.status();
    EXPECT_EQ(report->findings.size(), 1u) << cut;
    EXPECT_EQ(report->verified_bytes, content_.total_bytes()) << cut;
    store_.connection().SetFaults({.cut_at = cut});
    auto same = CompareCheckpoints(client_, name_, name_);
    ASSERT_TRUE(same.ok()) << cut << ": " << same.status();
    EXPECT_TRUE(same->identical);
  }
}

TEST_F(InspectTest, TheDeadlineEndsWhatTakesTooLong) {
  const auto begin = std::chrono::steady_clock::now();
  auto report = VerifyCheckpoint(
      client_, name_,
      {.max_bytes_per_second = 1, .deadline = After(std::chrono::milliseconds(300))});
  EXPECT_FALSE(report.ok());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_F(InspectTest, WhatDoesNotExistAndWhatDoesNotCompileAreReported) {
  EXPECT_EQ(VerifyCheckpoint(client_, "models/m/checkpoints/9").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(CompareCheckpoints(client_, name_, "models/x/checkpoints/1").status().code(),
            absl::StatusCode::kNotFound);
  auto refused = VerifyCheckpoint(client_, name_, {.selection = {.include = {"("}}});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("include_patterns[0]"));
}

}  // namespace
}  // namespace modelstore::support
