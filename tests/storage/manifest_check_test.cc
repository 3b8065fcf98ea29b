// Manifests as a hostile client may send them.
#include "storage/save/manifest_check.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "proto/contract/limits.h"
#include "storage/save/manifest_builder.h"
#include "tests/storage/store_fixture.h"

namespace modelstore::storage {
namespace {

constexpr DigestAlgorithm kAlgorithm = DigestAlgorithm::kXxh3_128;

absl::Status Check(ManifestPart part, DigestsWanted wanted = DigestsWanted::kAll) {
  ManifestTotals totals;
  return CheckManifestPart(kAlgorithm, wanted, part, totals);
}

ManifestPart Good() { return PartOf({{"w", {4, 6}, std::string(24, 'x')}}); }

struct Fault {
  const char* name;
  std::function<void(v1::TensorRecord&)> damage;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
};

class ManifestFaultTest : public ::testing::TestWithParam<Fault> {};

TEST_P(ManifestFaultTest, IsRefused) {
  ASSERT_OK(Check(Good()));
  ManifestPart part = Good();
  GetParam().damage(*part.mutable_tensors(0));
  const absl::Status status = Check(part);
  EXPECT_EQ(status.code(), GetParam().code) << status;
}

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

INSTANTIATE_TEST_SUITE_P(
    Faults, ManifestFaultTest,
    ::testing::Values(
        Fault{"EmptyKey", [](auto& t) { t.clear_key(); }},
        Fault{"LongKey", [](auto& t) { t.set_key(std::string(1025, 'k')); }},
        Fault{"KeyNotText", [](auto& t) { *t.mutable_key() = "\xff\xfe"; }},
        Fault{"BadSection", [](auto& t) { t.set_section("a b"); }},
        Fault{"NoDType", [](auto& t) { t.set_dtype(0); }},
        Fault{"UnknownDType", [](auto& t) { t.set_dtype(99); }},
        Fault{"HugeDType", [](auto& t) { t.set_dtype(0xffffffffu); }},
        Fault{"DTypeThatWraps", [](auto& t) { t.set_dtype(256 + 2); }},
        Fault{"NegativeShape", [](auto& t) { t.set_shape(0, -4); }},
        Fault{"HugeShape", [](auto& t) { t.set_shape(0, kHuge); }},
        Fault{"ShapeThatOverflows",
              [](auto& t) {
                t.set_shape(0, int64_t{1} << 40);
                t.set_shape(1, int64_t{1} << 40);
              }},
        Fault{"TooManyDimensions", [](auto& t) { t.mutable_shape()->Resize(65, 1); }},
        Fault{"UnknownRole", [](auto& t) { t.set_role(3); }},
        Fault{"TiedWithPieces", [](auto& t) { t.set_tied_to("model:v"); }},
        Fault{"NegativeOffset",
              [](auto& t) {
                t.mutable_pieces(0)->mutable_offset()->Resize(2, 0);
                t.mutable_pieces(0)->set_offset(0, -1);
              }},
        Fault{"HugeOffset",
              [](auto& t) {
                t.mutable_pieces(0)->mutable_offset()->Resize(2, 0);
                t.mutable_pieces(0)->set_offset(0, kHuge);
              }},
        Fault{"HugeSize",
              [](auto& t) { t.mutable_pieces(0)->mutable_size()->Resize(2, kHuge); }},
        Fault{"NegativeSize",
              [](auto& t) { t.mutable_pieces(0)->mutable_size()->Resize(2, -1); }},
        Fault{"OtherDimensions",
              [](auto& t) { t.mutable_pieces(0)->mutable_size()->Resize(3, 1); }},
        Fault{"NegativeChunkSize",
              [](auto& t) { t.mutable_pieces(0)->set_chunk_size_bytes(-1); }},
        Fault{"HugeChunkSize",
              [](auto& t) { t.mutable_pieces(0)->set_chunk_size_bytes(kHuge); }},
        Fault{"ChunkThatCutsAnElement",
              [](auto& t) {
                t.set_dtype(9);  // float32
                t.mutable_pieces(0)->set_chunk_size_bytes(6);
              }},
        Fault{"DigestsMissing", [](auto& t) { t.mutable_pieces(0)->clear_digests(); }},
        Fault{"DigestsCut",
              [](auto& t) { t.mutable_pieces(0)->mutable_digests()->resize(15); }},
        Fault{"DigestsTooMany",
              [](auto& t) { t.mutable_pieces(0)->mutable_digests()->append(16, 'd'); }},
        Fault{"BoxOfColumns",
              [](auto& t) {
                auto& piece = *t.mutable_pieces(0);
                piece.mutable_offset()->Resize(2, 0);
                piece.mutable_size()->Add(4);
                piece.mutable_size()->Add(3);
              },
              absl::StatusCode::kUnimplemented}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ManifestCheckTest, AnEndlessTensorInOneByteChunksIsRefused) {
  ManifestPart part = PartOf({Vector("w", "x")}, /*digests=*/false, 1);
  part.mutable_tensors(0)->set_shape(0, int64_t{1} << 50);
  EXPECT_TRUE(absl::IsInvalidArgument(Check(part, DigestsWanted::kAllOrNone)));
}

TEST(ManifestCheckTest, WhatTheClientSaysOfPlacesIsForgotten) {
  ManifestPart part = Good();
  part.mutable_tensors(0)->mutable_pieces(0)->add_packs(7);
  part.mutable_tensors(0)->mutable_pieces(0)->add_sequences(7);
  ManifestTotals totals;
  ASSERT_OK(CheckManifestPart(kAlgorithm, DigestsWanted::kAll, part, totals));
  EXPECT_EQ(part.tensors(0).pieces(0).packs_size(), 0);
  EXPECT_EQ(part.tensors(0).pieces(0).sequences_size(), 0);
}

TEST(ManifestCheckTest, ScalarsAndEmptyTensorsAndEmptySharesAreFine) {
  ManifestPart part = PartOf({{"scalar", {}, "s"}, {"empty", {0, 7}, ""}});
  auto& share = *part.mutable_tensors(0);
  ASSERT_EQ(share.pieces_size(), 1);
  ManifestTotals totals;
  ASSERT_OK(CheckManifestPart(kAlgorithm, DigestsWanted::kAll, part, totals));
  EXPECT_EQ(part.tensors(1).pieces_size(), 0);
  // A worker that has no row of this tensor.
  ManifestPart none = PartOf({{"w", {4}, "", 4, 0}});
  ASSERT_OK(CheckManifestPart(kAlgorithm, DigestsWanted::kAll, none, totals));
  EXPECT_EQ(none.tensors(0).pieces_size(), 0);
}

TEST(ManifestCheckTest, TheLimitsOfACheckpointHold) {
  ManifestTotals totals;
  totals.tensors = kMaxTensors;
  EXPECT_OK(CheckManifestTotals(totals));
  ++totals.tensors;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckManifestTotals(totals)));
  totals = {};
  totals.bytes = kMaxManifestBytes + 1;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckManifestTotals(totals)));
  ManifestPart part;
  auto& attachment = *part.add_attachments();
  attachment.set_name("a");
  attachment.set_data(std::string(kMaxTotalAttachmentBytes, 'a'));
  EXPECT_OK(Check(part));
  part.mutable_attachments(0)->mutable_data()->append("a");
  EXPECT_TRUE(absl::IsInvalidArgument(Check(part)));
  part.mutable_attachments(0)->set_data("a");
  part.mutable_attachments(0)->set_name("../etc/passwd");
  EXPECT_TRUE(absl::IsInvalidArgument(Check(part)));
}

TEST(ManifestCountsTest, SectionsAndAttachmentsAreLimited) {
  const auto nothing = [](const Digest&) { return std::optional<HeldChunk>(); };
  const auto unread = [](ChunkId, const Digest&) {
    return absl::StatusOr<PinnedBytes>(absl::InternalError("nothing is to be read"));
  };
  for (const int count : {kMaxSections, kMaxSections + 1}) {
    ManifestPart sections, attachments, tensors;
    for (int i = 0; i < count; ++i) {
      const std::string name = absl::StrCat("n", i);
      sections.add_sections()->set_name(name);
      attachments.add_attachments()->set_name(name);
      auto& tensor = *tensors.add_tensors();
      tensor.set_section(name);
      tensor.set_key("w");
      tensor.set_dtype(2);
      tensor.add_shape(0);
    }
    for (const ManifestPart& part : {sections, attachments, tensors}) {
      ManifestBuilder builder(kAlgorithm);
      absl::Status status = builder.Add(part);
      if (status.ok()) status = builder.Build(nothing, unread).status();
      EXPECT_EQ(status.ok(), count == kMaxSections) << status;
      EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
    }
  }
}

class TieTest : public ::testing::Test {
 protected:
  absl::Status Add(const std::string& tied_to, uint32_t dtype = 2, int64_t rows = 4) {
    ManifestPart part;
    auto& tensor = *part.add_tensors();
    tensor.set_section("model");
    tensor.set_key("tied");
    tensor.set_dtype(dtype);
    tensor.add_shape(rows);
    tensor.set_tied_to(tied_to);
    ManifestTotals totals;
    absl::Status status =
        CheckManifestPart(kAlgorithm, DigestsWanted::kAll, part, totals);
    return status.ok() ? builder_.Add(part) : status;
  }
  void SetUp() override { ASSERT_OK(builder_.Add(PartOf({{"w", {4}, "1234"}}))); }
  ManifestBuilder builder_{kAlgorithm};
};

TEST_F(TieTest, ToAnEarlierTensorOfItsKind) {
  EXPECT_OK(Add("model:w"));
  EXPECT_EQ(builder_.manifest().tensors(1).tied_to(), "model:w");
}
TEST_F(TieTest, WithoutASectionMeansModel) {
  EXPECT_OK(Add("w"));
  EXPECT_EQ(builder_.manifest().tensors(1).tied_to(), "model:w");
}
TEST_F(TieTest, ToNothingIsRefused) { EXPECT_TRUE(absl::IsInvalidArgument(Add("x"))); }
TEST_F(TieTest, ToItselfIsRefused) { EXPECT_TRUE(absl::IsInvalidArgument(Add("tied"))); }
TEST_F(TieTest, ToAnotherDTypeIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Add("w", 3)));
}
TEST_F(TieTest, ToAnotherShapeIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Add("w", 2, 5)));
}

}  // namespace
}  // namespace modelstore::storage
