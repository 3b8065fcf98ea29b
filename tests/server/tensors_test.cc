// ListTensors, GetSection and CHECKPOINT_VIEW_FULL.
#include "absl/strings/str_cat.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

using ::testing::ElementsAre;

class TensorsTest : public testing::Test {
 protected:
  void Save(int tensors) {
    std::vector<v1::SaveCheckpointRequest> requests(1);
    v1::SaveCheckpointRequest& first = requests[0];
    first.set_parent("models/m");
    first.set_create_model(true);
    first.mutable_checkpoint()->mutable_architecture()->mutable_root()->set_type("Net");
    for (int i = 0; i < tensors; ++i) {
      auto t = MakeTensor(absl::StrCat("layer.", i, ".weight"), v1::DTYPE_UINT8, {2},
                          MakeBytes(2, i));
      *first.mutable_manifest()->add_tensors() = t.tensor;
      AddChunk(&first, t.bytes);
    }
    v1::Section* hyper = first.mutable_manifest()->add_sections();
    hyper->set_name("hyperparameters");
    auto* entry = hyper->mutable_value()->mutable_dict_value()->add_entries();
    entry->mutable_key()->set_string_value("lr");
    entry->mutable_value()->set_double_value(0.1);
    requests.emplace_back().set_finish(true);
    auto saved = harness_.Save(requests);
    ASSERT_TRUE(saved.ok()) << saved.status();
  }

  absl::StatusOr<v1::ListTensorsResponse> List(v1::ListTensorsRequest request) {
    request.set_parent("models/m/checkpoints/latest");
    return harness_.Call<v1::ListTensorsResponse>(absl::StrCat(kStore, "ListTensors"),
                                                  request);
  }

  absl::StatusOr<v1::Section> GetSection(const std::string& section) {
    v1::GetSectionRequest request;
    request.set_parent("models/m/checkpoints/1");
    request.set_section(section);
    return harness_.Call<v1::Section>(absl::StrCat(kStore, "GetSection"), request);
  }

  Harness harness_;
};

TEST_F(TensorsTest, PagesContinueWhereTheLastEnded) {
  Save(25);
  v1::ListTensorsRequest request;
  request.set_page_size(7);
  std::vector<std::string> keys;
  int pages = 0;
  do {
    auto page = List(request);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& t : page->tensors()) keys.push_back(t.key());
    request.set_page_token(page->next_page_token());
    ++pages;
  } while (!request.page_token().empty() && pages < 10);
  EXPECT_EQ(pages, 4);
  ASSERT_EQ(keys.size(), 25u);
  for (int i = 0; i < 25; ++i) EXPECT_EQ(keys[i], absl::StrCat("layer.", i, ".weight"));
}

TEST_F(TensorsTest, PrefixAndRegexFilterWholeKeys) {
  Save(25);
  v1::ListTensorsRequest request;
  request.set_prefix("layer.1");
  request.set_regex("layer\\.1[0-2]\\.weight");
  auto page = List(request);
  ASSERT_TRUE(page.ok()) << page.status();
  std::vector<std::string> keys;
  for (const auto& t : page->tensors()) keys.push_back(t.key());
  EXPECT_THAT(keys, ElementsAre("layer.10.weight", "layer.11.weight", "layer.12.weight"));
  request.set_regex("weight");
  page = List(request);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->tensors_size(), 0) << "a pattern matches whole keys";
  request.set_regex("(");
  EXPECT_THAT(List(request), FailsWith(absl::StatusCode::kInvalidArgument, "regex"));
}

TEST_F(TensorsTest, KeysListOnlyTheseTensorsOverAllPages) {
  Save(25);
  v1::ListTensorsRequest request;
  for (int i = 24; i > 2; i -= 4) request.add_keys(absl::StrCat("layer.", i, ".weight"));
  request.set_page_size(4);
  std::vector<std::string> keys;
  do {
    auto page = List(request);
    ASSERT_TRUE(page.ok()) << page.status();
    for (const auto& t : page->tensors()) keys.push_back(t.key());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(keys, ElementsAre("layer.4.weight", "layer.8.weight", "layer.12.weight",
                                "layer.16.weight", "layer.20.weight", "layer.24.weight"));
}

TEST_F(TensorsTest, KeysThatDoNotExistAreNotFoundByName) {
  Save(3);
  const auto not_found = absl::StatusCode::kNotFound;
  v1::ListTensorsRequest request;
  request.add_keys("layer.1.weight");
  request.add_keys("layer.1xweight");
  request.add_keys("layer.9.weight");
  EXPECT_THAT(List(request),
              FailsWith(not_found,
                        "\"layer.1xweight\", \"layer.9.weight\" "
                        "in the selected sections of models/m/checkpoints/1"));
  request.clear_keys();
  request.add_keys("layer.1.weight");
  request.set_section("hyperparameters");
  EXPECT_THAT(List(request), FailsWith(not_found, "\"layer.1.weight\""));
  for (int i = 0; i < 4096; ++i) request.add_keys("k");
  EXPECT_THAT(List(request), FailsWith(absl::StatusCode::kInvalidArgument, "keys"));
}

TEST_F(TensorsTest, DigestsAreGivenInHexOnDemand) {
  Save(1);
  auto page = List({});
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->tensors(0).pieces(0).chunk_digests_hex_size(), 0);
  EXPECT_EQ(page->tensors(0).size_bytes(), 2);
  v1::ListTensorsRequest request;
  request.set_with_digests(true);
  page = List(request);
  ASSERT_TRUE(page.ok()) << page.status();
  const Digest digest = ComputeDigest(DigestAlgorithm::kXxh3_128, MakeBytes(2, 0));
  EXPECT_THAT(page->tensors(0).pieces(0).chunk_digests_hex(),
              ElementsAre(digest.ToHex()));
}

TEST_F(TensorsTest, ASectionsValueReadsBack) {
  Save(1);
  auto section = GetSection("hyperparameters");
  ASSERT_TRUE(section.ok()) << section.status();
  ASSERT_EQ(section->value().dict_value().entries_size(), 1);
  EXPECT_EQ(section->value().dict_value().entries(0).value().double_value(), 0.1);
  EXPECT_EQ(section->name(), "hyperparameters");
  auto plain = GetSection("model");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->has_value());
  EXPECT_EQ(plain->tensor_count(), 1);
  EXPECT_THAT(GetSection("scheduler"),
              FailsWith(absl::StatusCode::kNotFound, "scheduler"));
  EXPECT_THAT(GetSection("1bad"),
              FailsWith(absl::StatusCode::kInvalidArgument, "section"));
}

TEST_F(TensorsTest, ViewFullAddsValuesAndArchitecture) {
  Save(3);
  v1::GetCheckpointRequest request;
  request.set_name("models/m/checkpoints/latest");
  auto basic =
      harness_.Call<v1::Checkpoint>(absl::StrCat(kStore, "GetCheckpoint"), request);
  ASSERT_TRUE(basic.ok()) << basic.status();
  EXPECT_FALSE(basic->has_architecture());
  EXPECT_EQ(basic->tensor_count(), 3);
  EXPECT_EQ(basic->name(), "models/m/checkpoints/1");
  EXPECT_EQ(basic->manifest_digest().size(), 32u);
  request.set_view(v1::CHECKPOINT_VIEW_FULL);
  auto full =
      harness_.Call<v1::Checkpoint>(absl::StrCat(kStore, "GetCheckpoint"), request);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->architecture().root().type(), "Net");
  bool found = false;
  for (const auto& section : full->sections()) {
    if (section.name() != "hyperparameters") continue;
    found = true;
    EXPECT_TRUE(section.has_value());
  }
  EXPECT_TRUE(found);
}

TEST_F(TensorsTest, WhatExceedsAnAnswerIsOutOfRangeAndStillLoads) {
  std::vector<v1::SaveCheckpointRequest> requests(1);
  requests[0].set_parent("models/m");
  requests[0].set_create_model(true);
  for (int i = 0; i < 5; ++i) {
    v1::Section* section = requests.back().mutable_manifest()->add_sections();
    section->set_name(absl::StrCat("blob", i));
    section->mutable_value()->set_bytes_value(std::string(900'000, 'b'));
    requests.emplace_back();
  }
  v1::Section* huge = requests.back().mutable_manifest()->add_sections();
  huge->set_name("huge");
  huge->mutable_value()->set_bytes_value(std::string(4'500'000, 'h'));
  requests.emplace_back().set_finish(true);
  auto saved = harness_.Save(requests);
  ASSERT_TRUE(saved.ok()) << saved.status();

  EXPECT_THAT(GetSection("huge"), FailsWith(absl::StatusCode::kOutOfRange, "huge"));
  EXPECT_TRUE(GetSection("blob1").ok());
  v1::GetCheckpointRequest full;
  full.set_name("models/m/checkpoints/1");
  full.set_view(v1::CHECKPOINT_VIEW_FULL);
  EXPECT_THAT(harness_.Call<v1::Checkpoint>(absl::StrCat(kStore, "GetCheckpoint"), full),
              FailsWith(absl::StatusCode::kOutOfRange, "GetSection"));
  v1::LoadCheckpointRequest load;
  load.set_name("models/m/checkpoints/1");
  auto loaded = harness_.Load(load);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_EQ(loaded->plan.sections_size(), 6);
  for (const auto& section : loaded->plan.sections()) {
    if (section.name() == "huge") {
      EXPECT_EQ(section.value().bytes_value().size(), 4'500'000u);
    }
  }
}

}  // namespace
}  // namespace modelstore::server
