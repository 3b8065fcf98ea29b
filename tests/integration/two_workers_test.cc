// One checkpoint saved by two workers, each with its own client, over a real
// server.
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

constexpr int64_t kRows = 1'000;
constexpr int64_t kColumns = 700;
constexpr int64_t kRowBytes = kColumns * 4;

class TwoWorkersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = support::ServerProcess::Start({.folder = folder_.path()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    for (auto& client : clients_) {
      auto connected = support::ConnectTo(server_->address());
      ASSERT_TRUE(connected.ok()) << connected.status();
      client = *connected;
    }
  }

  // Both workers at once; each must be told the same version.
  absl::StatusOr<CheckpointInfo> SaveTogether(SaveContent first, SaveContent second,
                                              const std::string& request_id) {
    SaveContent contents[2] = {std::move(first), std::move(second)};
    absl::StatusOr<CheckpointInfo> results[2];
    std::thread workers[2];
    for (int w = 0; w < 2; ++w) {
      workers[w] = std::thread([this, w, &contents, &results, &request_id] {
        SaveOptions options;
        options.request_id = request_id;
        options.contribution = w;
        options.contribution_count = 2;
        results[w] = clients_[w]
                         ->SaveAsync("models/shared", std::move(contents[w]), options)
                         .Durable(After(std::chrono::seconds(60)));
      });
    }
    for (std::thread& t : workers) t.join();
    for (const auto& r : results) {
      if (!r.ok()) return r;
    }
    EXPECT_EQ(results[0]->name, results[1]->name);
    return results[0];
  }

  // Rows [begin, end) of a tensor of kRows rows.
  static TensorView Rows(const std::string& key, const std::string& bytes, int64_t begin,
                         int64_t end) {
    TensorView view;
    view.info.key = key;
    view.info.shape = {kRows, kColumns};
    view.info.size_bytes = (end - begin) * kRowBytes;
    view.data = bytes.data() + begin * kRowBytes;
    view.offset = {begin, 0};
    view.size = {end - begin, kColumns};
    return view;
  }

  support::TempFolder folder_{"workers"};
  std::unique_ptr<support::ServerProcess> server_;
  std::optional<Client> clients_[2];
};

TEST_F(TwoWorkersTest, EachSavesHalfOfTheTensors) {
  const support::TensorSet whole({.seed = 3, .tensors = 20, .bytes = 6 << 20});
  SaveContent halves[2];
  SaveContent all = whole.Content();
  for (size_t i = 0; i < all.tensors.size(); ++i) {
    halves[i % 2].tensors.push_back(all.tensors[i]);
  }
  auto saved = SaveTogether(std::move(halves[0]), std::move(halves[1]), "halves");
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->tensor_count, static_cast<int64_t>(all.tensors.size()));
  EXPECT_EQ(support::Verify(*clients_[0], saved->name, whole), absl::OkStatus());
}

TEST_F(TwoWorkersTest, ATensorSavedAsTwoHalvesIsOneAndAnyOfItsRowsLoad) {
  std::mt19937_64 random(TestSeed());
  const std::string bytes = support::RandomBytes(random(), kRows * kRowBytes);
  const int64_t cut = 1 + static_cast<int64_t>(random() % (kRows - 1));
  SaveContent first, second;
  first.tensors.push_back(Rows("w", bytes, 0, cut));
  second.tensors.push_back(Rows("w", bytes, cut, kRows));
  auto saved = SaveTogether(std::move(first), std::move(second), "rows");
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->tensor_count, 1);
  auto loaded = support::Load(*clients_[0], saved->name);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_TRUE(loaded->at("model:w") == bytes);

  int compared = 0;
  const auto load_rows = [&](int64_t begin, int64_t end) {
    LoadOptions options;
    options.slices.push_back({"model:w", begin, end});
    auto part = support::Load(*clients_[compared % 2], saved->name, options);
    ASSERT_TRUE(part.ok()) << part.status() << " rows " << begin << " to " << end;
    EXPECT_TRUE(part->at("model:w") ==
                bytes.substr(begin * kRowBytes, (end - begin) * kRowBytes))
        << "rows " << begin << " to " << end;
    ++compared;
  };
  for (const auto& [begin, end] : {std::pair{int64_t{0}, cut},
                                   {cut, kRows},
                                   {cut - 1, cut + 1 > kRows ? kRows : cut + 1},
                                   {int64_t{0}, int64_t{1}},
                                   {kRows - 1, kRows},
                                   {int64_t{0}, kRows}}) {
    load_rows(begin, end);
  }
  for (int i = 0; i < 100; ++i) {
    const int64_t begin = static_cast<int64_t>(random() % kRows);
    load_rows(begin, begin + 1 + static_cast<int64_t>(random() % (kRows - begin)));
  }
  std::printf("two halves cut at row %ld: %d ranges of rows compared\n",
              static_cast<long>(cut), compared);
}

TEST_F(TwoWorkersTest, AReplicaThatBothSaveIsStoredOnce) {
  const std::string bytes = support::RandomBytes(8, kRows * kRowBytes);
  SaveContent contents[2];
  for (SaveContent& c : contents) c.tensors.push_back(Rows("w", bytes, 0, kRows));
  auto saved = SaveTogether(contents[0], contents[1], "replica");
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->tensor_count, 1);
  EXPECT_EQ(saved->logical_bytes, kRows * kRowBytes);
  EXPECT_EQ(saved->stored_bytes, kRows * kRowBytes);
  auto loaded = support::Load(*clients_[1], saved->name);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_TRUE(loaded->at("model:w") == bytes);
}

TEST_F(TwoWorkersTest, ReplicasThatDifferAreRefusedByName) {
  support::RawClient raw(server_->NewChannel());
  v1::Upload upload;
  ASSERT_TRUE(raw.CreateUpload("models/shared", "differ", &upload, 2).ok());
  const support::RawTensor one("weight", 1, 50'000, 3), other("weight", 2, 50'000, 3);
  ASSERT_TRUE(raw.Upload(upload.name(), 0, {one.tensor}, one.chunks).ok());
  ASSERT_TRUE(raw.Upload(upload.name(), 1, {other.tensor}, other.chunks).ok());
  v1::Checkpoint made;
  const grpc::Status s = raw.Commit(upload.name(), &made);
  EXPECT_EQ(s.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << s.error_message();
  EXPECT_NE(s.error_message().find("weight"), std::string::npos) << s.error_message();
  auto list = clients_[0]->ListCheckpoints("models/shared");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_TRUE(list->empty());
}

TEST_F(TwoWorkersTest, ACommitWithoutOneContributionIsRefusedByItsNumber) {
  support::RawClient raw(server_->NewChannel());
  v1::Upload upload;
  grpc::Status s = raw.CreateUpload("models/shared", "absent", &upload, 3);
  ASSERT_TRUE(s.ok()) << s.error_message();
  const support::RawTensor a("a", 1, 50'000, 3), c("c", 2, 50'000, 3);
  ASSERT_TRUE(raw.Upload(upload.name(), 0, {a.tensor}, a.chunks).ok());
  ASSERT_TRUE(raw.Upload(upload.name(), 2, {c.tensor}, c.chunks).ok());
  v1::Checkpoint made;
  s = raw.Commit(upload.name(), &made);
  EXPECT_EQ(s.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << s.error_message();
  EXPECT_NE(s.error_message().find("1"), std::string::npos) << s.error_message();
  std::printf("commit without contribution 1: %s\n", s.error_message().c_str());
  // It comes late, and all is well.
  const support::RawTensor b("b", 3, 50'000, 3);
  ASSERT_TRUE(raw.Upload(upload.name(), 1, {b.tensor}, b.chunks).ok());
  s = raw.Commit(upload.name(), &made);
  ASSERT_TRUE(s.ok()) << s.error_message();
  EXPECT_EQ(made.tensor_count(), 3);
}

TEST_F(TwoWorkersTest, AContributionSentAgainReplacesTheFirst) {
  support::RawClient raw(server_->NewChannel());
  v1::Upload upload;
  ASSERT_TRUE(raw.CreateUpload("models/shared", "again", &upload, 2).ok());
  const support::RawTensor wrong("wrong", 1, 50'000, 3), right("right", 2, 50'000, 3);
  const support::RawTensor other("other", 3, 50'000, 3);
  ASSERT_TRUE(raw.Upload(upload.name(), 0, {wrong.tensor}, wrong.chunks).ok());
  ASSERT_TRUE(raw.Upload(upload.name(), 1, {other.tensor}, other.chunks).ok());
  ASSERT_TRUE(raw.Upload(upload.name(), 0, {right.tensor}, right.chunks).ok());
  v1::Checkpoint made;
  const grpc::Status s = raw.Commit(upload.name(), &made);
  ASSERT_TRUE(s.ok()) << s.error_message();
  auto loaded = support::Load(*clients_[0], made.name());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->count("model:wrong"), 0u);
  EXPECT_TRUE(loaded->at("model:right") == right.bytes());
  EXPECT_TRUE(loaded->at("model:other") == other.bytes());
}

}  // namespace
}  // namespace modelstore
