// One request_id leads to one content: repeated with other content it is refused, on
// every way that a save takes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "modelstore/lifecycle.h"
#include "modelstore/modify.h"
#include "modelstore/v1/model_store.pb.h"
#include "proto/contract/errors.h"
#include "tests/client/hooked_connection.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::HookedConnection;
using support::RandomBytes;
using support::ScriptedStream;
using support::TestDeadline;
using support::TestStore;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = int64_t{1} << 20;

class RequestIdTest : public ::testing::Test {
 protected:
  RequestIdTest() { options_.request_id = "same"; }

  // Tensors x and y of two different contents.
  SaveContent Content(int64_t size) {
    bytes_ = {RandomBytes(1, size), RandomBytes(2, size)};
    SaveContent content;
    for (int i = 0; i < 2; ++i) {
      TensorView view;
      view.info.section = "model";
      view.info.key = i == 0 ? "x" : "y";
      view.info.dtype = DType::kUint8;
      view.info.shape = {size};
      view.info.size_bytes = size;
      view.data = bytes_[i].data();
      content.tensors.push_back(view);
    }
    content.sections.push_back(
        {.name = "extra", .value = Value(int64_t{1}), .metadata = {}});
    content.attachments = {{"card.md", "text/markdown", "# Model"}};
    content.metadata.epoch = 3;
    return content;
  }
  absl::StatusOr<CheckpointInfo> Save(const SaveContent& content) {
    return client_.SaveAsync("models/m", content, options_).Durable(TestDeadline());
  }
  // The same request_id with what `change` makes of the content, after the content
  // itself was saved. Both ways: less than 1 MiB, and an upload.
  void ExpectRefused(const char* what, const std::function<void(SaveContent&)>& change) {
    for (const int64_t size : {int64_t{1000}, 2 * kMiB}) {
      options_.request_id = absl::StrCat("same-", ++saves_);
      auto first = Save(Content(size));
      ASSERT_TRUE(first.ok()) << first.status();
      const std::vector<std::string> saved = bytes_;
      SaveContent other = Content(size);
      change(other);
      const absl::Status refused = Save(other).status();
      EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument)
          << what << ", " << size << " bytes: " << refused;
      EXPECT_THAT(std::string(refused.message()), HasSubstr("request_id")) << what;
      // The right content is still acknowledged, by the version that it made.
      auto again = Save(Content(size));
      ASSERT_TRUE(again.ok()) << what << ": " << again.status();
      EXPECT_EQ(again->version, first->version) << what;
      auto loaded = support::Load(client_, first->name);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      EXPECT_EQ(loaded->at("model:x"), saved[0]);
      EXPECT_EQ(loaded->at("model:y"), saved[1]);
    }
  }

  TestStore store_;
  Client client_ = store_.NewClient();
  SaveOptions options_;
  std::vector<std::string> bytes_;
  int saves_ = 0;
};

TEST_F(RequestIdTest, TheSameChunksInOtherPlacesAreRefused) {
  ExpectRefused("x and y swapped",
                [](SaveContent& c) { std::swap(c.tensors[0].data, c.tensors[1].data); });
}

TEST_F(RequestIdTest, EveryOtherPartOfTheContentIsComparedToo) {
  ExpectRefused("order", [](SaveContent& c) { std::swap(c.tensors[0], c.tensors[1]); });
  ExpectRefused("a key", [](SaveContent& c) { c.tensors[0].info.key = "z"; });
  ExpectRefused("a dtype",
                [](SaveContent& c) { c.tensors[0].info.dtype = DType::kInt8; });
  ExpectRefused("a shape", [](SaveContent& c) {
    c.tensors[0].info.shape = {2, c.tensors[0].info.size_bytes / 2};
  });
  ExpectRefused("a section", [](SaveContent& c) { c.tensors[0].info.section = "ema"; });
  ExpectRefused("requires_grad", [](SaveContent& c) {
    c.tensors[0].info.requires_grad = !c.tensors[0].info.requires_grad;
  });
  ExpectRefused("one tensor fewer", [](SaveContent& c) { c.tensors.pop_back(); });
  ExpectRefused("one tensor more", [](SaveContent& c) {
    c.tensors.push_back(c.tensors[0]);
    c.tensors.back().info.key = "z";
  });
  ExpectRefused("a tie", [](SaveContent& c) {
    c.tensors[1].info.tied_to = "model:x";
    c.tensors[1].data = nullptr;
  });
  ExpectRefused("a value",
                [](SaveContent& c) { c.sections[0].value = Value(int64_t{2}); });
  ExpectRefused("metadata of a section",
                [](SaveContent& c) { c.sections[0].metadata = Value(int64_t{2}); });
  ExpectRefused("a section fewer", [](SaveContent& c) { c.sections.clear(); });
  ExpectRefused("an attachment", [](SaveContent& c) { c.attachments[0].data = "#"; });
  ExpectRefused("an attachment's type",
                [](SaveContent& c) { c.attachments[0].media_type.clear(); });
  ExpectRefused("an attachment fewer", [](SaveContent& c) { c.attachments.clear(); });
  ExpectRefused("an attachment more", [](SaveContent& c) {
    c.attachments.push_back({"b", "", "b"});
  });
}

TEST_F(RequestIdTest, WhatTheSaveSaysOfItselfIsComparedToo) {
  ExpectRefused("epoch", [](SaveContent& c) { c.metadata.epoch = 4; });
  ExpectRefused("no epoch", [](SaveContent& c) { c.metadata.epoch.reset(); });
  ExpectRefused("step", [](SaveContent& c) { c.metadata.step = 1; });
  ExpectRefused("loss", [](SaveContent& c) { c.metadata.loss = 0.5; });
  ExpectRefused("metrics", [](SaveContent& c) { c.metadata.metrics["a"] = 1; });
  ExpectRefused("labels", [](SaveContent& c) { c.metadata.labels["a"] = "b"; });
  ExpectRefused("description", [](SaveContent& c) { c.metadata.description = "other"; });
}

TEST_F(RequestIdTest, TheRefusalNamesWhatDiffers) {
  ASSERT_TRUE(Save(Content(2 * kMiB)).ok());
  SaveContent other = Content(2 * kMiB);
  std::swap(other.tensors[0].data, other.tensors[1].data);
  const absl::Status s = Save(other).status();
  EXPECT_THAT(std::string(s.message()), HasSubstr("\"same\" was used with other content "
                                                  "for version 1: tensor model:x has "
                                                  "other bytes"));
}

// A later version may be the base meanwhile, and the content that of no version's.
TEST_F(RequestIdTest, TensorsThatAreNoWholeChunksAreTheSameWhenTheyComeAgain) {
  const auto content = [this] {
    SaveContent made = Content(2 * kMiB + 123);
    made.tensors[0].info.shape = {1000};
    made.tensors[0].info.size_bytes = 1000;
    return made;
  };
  options_.request_id = "odd";
  auto first = Save(content());
  ASSERT_TRUE(first.ok()) << first.status();
  auto again = Save(content());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version, first->version);
}

TEST_F(RequestIdTest, ARepetitionIsAcknowledgedAlsoAfterOtherVersions) {
  auto first = Save(Content(2 * kMiB));
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(
      client_.SaveAsync("models/m", Content(3 * kMiB), {}).Durable(TestDeadline()).ok());
  auto again = Save(Content(2 * kMiB));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version, 1);
}

TEST_F(RequestIdTest, AnUploadThatContinuesWithOtherContentSavesThatContent) {
  // Worker 0 of a job dies before its commit, and comes back with other values.
  store_.connection().SetFaults({.stall_at = 4});
  options_.deadline = After(std::chrono::milliseconds(300));
  EXPECT_FALSE(Save(Content(6 * kMiB)).ok());
  store_.connection().SetFaults({});
  options_.deadline = After(std::chrono::minutes(1));
  SaveContent other = Content(6 * kMiB);
  std::swap(other.tensors[0].data, other.tensors[1].data);
  auto saved = Save(other);
  ASSERT_TRUE(saved.ok()) << saved.status();
  auto loaded = support::Load(client_, saved->name);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->at("model:x"), bytes_[1]);
  EXPECT_EQ(loaded->at("model:y"), bytes_[0]);
}

TEST_F(RequestIdTest, OfTwoContentsAtOnceTheOneThatIsNotStoredIsRefused) {
  for (int round = 0; round < 5; ++round) {
    options_.request_id = absl::StrCat("race-", round);
    SaveContent contents[2] = {Content(2 * kMiB), {}};
    contents[1] = contents[0];
    std::swap(contents[1].tensors[0].data, contents[1].tensors[1].data);
    absl::StatusOr<CheckpointInfo> saved[2] = {absl::UnknownError(""),
                                               absl::UnknownError("")};
    std::thread other([&] {
      saved[1] = store_.NewClient()
                     .SaveAsync("models/m", contents[1], options_)
                     .Durable(TestDeadline());
    });
    saved[0] = Save(contents[0]);
    other.join();
    ASSERT_TRUE(saved[0].ok() || saved[1].ok()) << saved[0].status();
    for (int i = 0; i < 2; ++i) {
      if (!saved[i].ok()) continue;
      auto loaded = support::Load(client_, saved[i]->name);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      EXPECT_EQ(loaded->at("model:x"), bytes_[i]) << "of save " << i;
    }
  }
}

TEST_F(RequestIdTest, AWorkerOfADistributedSaveMayNotComeBackWithOtherRows) {
  const std::string rows = RandomBytes(7, 4 * kMiB);
  const auto contribution = [&](int worker, int64_t shift) {
    TensorView view;
    view.info.key = "w";
    view.info.dtype = DType::kUint8;
    view.info.shape = {4, kMiB};
    view.info.size_bytes = 2 * kMiB;
    view.data = rows.data() + (worker == 0 ? 0 : 2 * kMiB) + shift;
    view.offset = {2 * worker, 0};
    view.size = {2, kMiB};
    SaveContent content;
    content.tensors.push_back(view);
    return content;
  };
  const auto worker = [&](int index) {
    SaveOptions options = options_;
    options.contribution = index;
    options.contribution_count = 2;
    return options;
  };
  const SaveHandle zero = client_.SaveAsync("models/m", contribution(0, 0), worker(0));
  Client second = store_.NewClient();
  ASSERT_TRUE(second.SaveAsync("models/m", contribution(1, 0), worker(1))
                  .Durable(TestDeadline())
                  .ok());
  ASSERT_TRUE(zero.Durable(TestDeadline()).ok());
  EXPECT_TRUE(second.SaveAsync("models/m", contribution(1, 0), worker(1))
                  .Durable(TestDeadline())
                  .ok());
  // The rows of the other worker: every chunk is in the version, in another place.
  const absl::Status s =
      second.SaveAsync("models/m", contribution(1, -2 * kMiB), worker(1))
          .Durable(TestDeadline())
          .status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

// Rows [first, first + rows) of a tensor of four; `bytes` are those of the piece.
TensorView Rows(const std::string& bytes, int64_t first, int64_t rows, int64_t width) {
  TensorView view;
  view.info.key = "w";
  view.info.dtype = DType::kUint8;
  view.info.shape = {4, width};
  view.info.size_bytes = rows * width;
  view.data = bytes.data();
  view.offset = {first, 0};
  view.size = {rows, width};
  return view;
}

TEST_F(RequestIdTest, ATensorInPiecesIsTheSameWhenItComesAgain) {
  for (const int64_t size : {int64_t{1000}, 2 * kMiB}) {
    options_.request_id = absl::StrCat("pieces-", size);
    // x and y come after the tensor of two pieces.
    SaveContent content = Content(size);
    const std::string first_rows = RandomBytes(3, size), last_rows = RandomBytes(4, size);
    const std::vector<TensorView> pieces = {Rows(first_rows, 0, 2, size / 2),
                                            Rows(last_rows, 2, 2, size / 2)};
    content.tensors.insert(content.tensors.begin(), pieces.begin(), pieces.end());
    auto first = Save(content);
    ASSERT_TRUE(first.ok()) << first.status();
    auto again = Save(content);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->version, first->version);
    SaveContent other = content;
    std::swap(other.tensors[0].data, other.tensors[1].data);
    const absl::Status s = Save(other).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
    other = content;
    other.tensors[1].data = first_rows.data();
    EXPECT_EQ(Save(other).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(RequestIdTest, APieceThatIsGivenInTwoWaysCountsOnce) {
  SaveContent content = Content(2 * kMiB);
  TensorView written_out = content.tensors[0];
  written_out.offset = {0};
  written_out.size = written_out.info.shape;
  content.tensors.push_back(written_out);
  auto first = Save(content);
  ASSERT_TRUE(first.ok()) << first.status();
  auto again = Save(content);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->version, first->version);
}

TEST_F(RequestIdTest, EveryPieceOfAWorkerIsCompared) {
  const std::string rows[4] = {RandomBytes(1, kMiB), RandomBytes(2, kMiB),
                               RandomBytes(3, kMiB), RandomBytes(4, kMiB)};
  const auto save = [&](Client& client, int worker, int last) {
    SaveContent content;
    content.tensors = {Rows(rows[2 * worker], 2 * worker, 1, kMiB),
                       Rows(rows[last], 2 * worker + 1, 1, kMiB)};
    SaveOptions options = options_;
    options.contribution = worker;
    options.contribution_count = 2;
    return client.SaveAsync("models/m", content, options);
  };
  const SaveHandle zero = save(client_, 0, 1);
  Client second = store_.NewClient();
  ASSERT_TRUE(save(second, 1, 3).Durable(TestDeadline()).ok());
  ASSERT_TRUE(zero.Durable(TestDeadline()).ok());
  EXPECT_TRUE(save(second, 1, 3).Durable(TestDeadline()).ok());
  const absl::Status s = save(second, 1, 0).Durable(TestDeadline()).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

// As of a tensor with more digests than an answer holds.
TEST_F(RequestIdTest, WithoutTheDigestsTheVersionMustHaveEveryChunk) {
  auto first = Save(Content(2 * kMiB));
  ASSERT_TRUE(first.ok()) << first.status();
  absl::Status why = absl::OutOfRangeError("tensor model:x has more digests");
  int refused = 0;
  client_ = Client(std::make_shared<HookedConnection>(
      store_.connection(),
      [&](std::string_view method,
          const std::string& bytes) -> std::optional<absl::StatusOr<std::string>> {
        v1::ListTensorsRequest request;
        if (method != "ListTensors" || !request.ParseFromString(bytes) ||
            !request.with_digests()) {
          return std::nullopt;
        }
        ++refused;
        return why;
      }));
  for (const absl::Status& s : {why, absl::UnimplementedError("no digests")}) {
    why = s;
    refused = 0;
    auto again = Save(Content(2 * kMiB));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->version, first->version);
    EXPECT_EQ(refused, 1);
  }
  const auto expect_refused = [&](const std::function<void(SaveContent&)>& change) {
    SaveContent other = Content(2 * kMiB);
    change(other);
    const absl::Status s = Save(other).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
  };
  const std::string bytes = RandomBytes(9, 2 * kMiB);
  expect_refused([&](SaveContent& c) { c.tensors[1].data = bytes.data(); });
  expect_refused([](SaveContent& c) { std::swap(c.tensors[0], c.tensors[1]); });
  expect_refused([](SaveContent& c) { c.tensors.pop_back(); });
  expect_refused([](SaveContent& c) { c.sections[0].value = Value(int64_t{2}); });
}

TEST_F(RequestIdTest, AVersionThatCouldNotBeComparedIsReportedOf) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = std::chrono::milliseconds(0);
  TestStore store(options);
  for (const std::string away : {"ListTensors", "GetCheckpoint"}) {
    bool answers = true;
    client_ = Client(std::make_shared<HookedConnection>(
        store.connection(),
        [&](std::string_view method,
            const std::string&) -> std::optional<absl::StatusOr<std::string>> {
          if (answers || method != away) return std::nullopt;
          return absl::UnavailableError("away");
        }));
    options_.request_id = away;
    auto first = Save(Content(2 * kMiB));
    ASSERT_TRUE(first.ok()) << first.status();
    answers = false;
    const absl::Status s = Save(Content(2 * kMiB)).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(s.message()),
                HasSubstr(absl::StrCat("version ", first->version,
                                       away == "ListTensors"
                                           ? " exists with this request_id but could "
                                             "not be compared"
                                           : " contains this save")));
    EXPECT_THAT(std::string(s.message()), Not(HasSubstr("nothing was saved")));
  }
}

TEST_F(RequestIdTest, ACommitThatWasRefusedCannotBeDecided) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = std::chrono::milliseconds(0);
  TestStore store(options);
  bool refuses = false;
  client_ = Client(std::make_shared<HookedConnection>(
      store.connection(),
      [&](std::string_view method,
          const std::string&) -> std::optional<absl::StatusOr<std::string>> {
        if (!refuses || method != "CreateUpload") return std::nullopt;
        return absl::UnavailableError("away");
      },
      [&](std::string_view method) -> std::unique_ptr<Stream> {
        if (!refuses || method != "SaveCheckpoint") return nullptr;
        return std::make_unique<ScriptedStream>(
            std::vector<std::string>(), absl::NotFoundError("the base was deleted"));
      }));
  options_.request_id.clear();
  ASSERT_TRUE(Save(Content(2 * kMiB)).ok());
  refuses = true;
  // It is sent in one stream, and then as an upload.
  const absl::Status s = Save(Content(2 * kMiB)).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("nothing was saved"));
}

TEST_F(RequestIdTest, ARefusalAfterALostAnswerLeavesItUndecided) {
  int streams = 0;
  client_ = Client(std::make_shared<HookedConnection>(
      store_.connection(), nullptr, [&](std::string_view) {
        return std::make_unique<ScriptedStream>(
            std::vector<std::string>(), ++streams == 1
                                            ? absl::UnavailableError("cut")
                                            : absl::ResourceExhaustedError("disk full"));
      }));
  const absl::Status s = Save(Content(1000)).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kResourceExhausted) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("may have succeeded"));
  EXPECT_EQ(streams, 2);
}

TEST_F(RequestIdTest, ASaveThatWasRefusedForOverloadCannotBeDecided) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = std::chrono::milliseconds(0);
  TestStore store(options);
  client_ = Client(std::make_shared<HookedConnection>(
      store.connection(), nullptr, [](std::string_view) {
        return std::make_unique<ScriptedStream>(std::vector<std::string>(),
                                                Overloaded("too many streams"));
      }));
  const absl::Status s = Save(Content(1000)).status();
  EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("nothing was saved"));
}

// The worker delivered to an upload that expired. Others began the save anew.
TEST_F(RequestIdTest, AWorkerIsReportedOfNoVersionThatOtherWorkersMadeWithoutIt) {
  const std::string rows[3] = {RandomBytes(1, 2 * kMiB), RandomBytes(2, 2 * kMiB),
                               RandomBytes(3, 2 * kMiB)};
  const auto save = [&](Client& client, int worker, int bytes) {
    SaveContent content;
    content.tensors = {Rows(rows[bytes], 2 * worker, 2, kMiB)};
    SaveOptions options = options_;
    options.contribution = worker;
    options.contribution_count = 2;
    return client.SaveAsync("models/m", content, options);
  };
  for (const int bytes : {1, 2}) {
    options_.request_id = absl::StrCat("epoch-", bytes);
    std::atomic<bool> expired{false};
    Client late(std::make_shared<HookedConnection>(
        store_.connection(),
        [&](std::string_view method,
            const std::string& request) -> std::optional<absl::StatusOr<std::string>> {
          if (method != "GetUpload") return std::nullopt;
          if (!expired.exchange(true)) {
            // Both requests hold the upload's name alone.
            EXPECT_TRUE(store_.connection()
                            .Call("/modelstore.v1.CheckpointTransfer/DeleteUpload",
                                  request, TestDeadline())
                            .ok());
            const SaveHandle zero = save(client_, 0, 0);
            Client other = store_.NewClient();
            EXPECT_TRUE(save(other, 1, 1).Durable(TestDeadline()).ok());
            EXPECT_TRUE(zero.Durable(TestDeadline()).ok());
          }
          return absl::NotFoundError("the upload is gone");
        }));
    const absl::Status s = save(late, 1, bytes).Durable(TestDeadline()).status();
    EXPECT_EQ(s.code(),
              bytes == 1 ? absl::StatusCode::kOk : absl::StatusCode::kInvalidArgument)
        << s;
  }
}

TEST_F(RequestIdTest, CopiesAndModificationsRefuseAnotherRequestToo) {
  ASSERT_TRUE(Save(Content(1000)).ok());
  const std::string source = "models/m/checkpoints/1";
  ASSERT_TRUE(CopyCheckpoint(client_, source, "models/c", {.request_id = "copy"}).ok());
  EXPECT_TRUE(CopyCheckpoint(client_, source, "models/c", {.request_id = "copy"}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(
      CopyCheckpoint(client_, source, "models/c",
                     {.metadata = {.description = "other"}, .request_id = "copy"})
          .status()));
  ModifyOptions modify;
  modify.request_id = "modify";
  const EditList edits = EditList().DropKeys({"x"});
  auto modified = ModifyCheckpoint(client_, source, edits, modify);
  ASSERT_TRUE(modified.ok()) << modified.status();
  auto again = ModifyCheckpoint(client_, source, edits, modify);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->checkpoint.version, modified->checkpoint.version);
  EXPECT_TRUE(absl::IsInvalidArgument(
      ModifyCheckpoint(client_, source, EditList().DropKeys({"y"}), modify).status()));
  // Nor is an id of one kind of call taken by another.
  options_.request_id = "modify";
  EXPECT_TRUE(absl::IsInvalidArgument(Save(Content(2 * kMiB)).status()));
}

}  // namespace
}  // namespace modelstore
