// The administrator's calls through the client: the server's limits and figures,
// unfinished saves, and the collection of garbage.
#include "modelstore/admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/internal/rpc.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/limits.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore::support {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class AdminTest : public ::testing::Test {
 protected:
  // Opens an upload as a worker of a job does, which never comes back; returns its name.
  std::string LeaveAnUpload(const std::string& model, const std::string& request_id) {
    v1::CreateUploadRequest request;
    request.set_parent("models/" + model);
    request.set_create_model(true);
    request.set_request_id(request_id);
    request.mutable_upload()->set_contribution_count(2);
    auto upload = internal::CallRpc<v1::Upload>(
        store_.connection(), internal::kTransfer, "CreateUpload", request,
        internal::Idempotency::kIdempotent, TestDeadline());
    EXPECT_TRUE(upload.ok()) << upload.status();
    return upload.ok() ? upload->name() : "";
  }
  std::vector<std::string> Uploads(std::string_view parent) {
    std::vector<std::string> names;
    for (const UploadInfo& u : *ListUploads(client_, parent)) names.push_back(u.name);
    return names;
  }

  TestStore store_;
  Client client_ = store_.NewClient();
};

TEST_F(AdminTest, TheServerReportsItsLimits) {
  const auto info = GetServerInfo(client_);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->limits.max_chunk_bytes, kMaxChunkBytes);
  EXPECT_EQ(info->limits.max_message_bytes, kMaxMessageBytes);
  EXPECT_EQ(info->limits.max_tensors_per_checkpoint, kMaxTensors);
  EXPECT_EQ(info->limits.max_sections_per_checkpoint, kMaxSections);
  EXPECT_EQ(info->limits.max_attachments_per_checkpoint, kMaxAttachments);
  EXPECT_EQ(info->limits.small_save_bytes, kSmallSaveBytes);
  EXPECT_FALSE(info->with_sha256);
}

TEST_F(AdminTest, StatsFollowWhatIsStored) {
  auto stats = GetStats(client_);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->model_count, 0);
  EXPECT_FALSE(stats->last_scrub_time.has_value());
  ASSERT_TRUE(Save(client_, "models/a", TensorSet({.seed = 1})).ok());
  ASSERT_TRUE(Save(client_, "models/a", TensorSet({.seed = 2, .bytes = 4 << 20})).ok());
  LeaveAnUpload("b", "job");
  stats = GetStats(client_);
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->model_count, 2);
  EXPECT_EQ(stats->checkpoint_count, 2);
  EXPECT_EQ(stats->open_upload_count, 1);
  EXPECT_GT(stats->pack_bytes, 0);
}

TEST_F(AdminTest, UnfinishedSavesAreListedAndDeleted) {
  const std::string a = LeaveAnUpload("a", "job-1");
  const std::string b = LeaveAnUpload("b", "job-2");
  EXPECT_THAT(Uploads("models/-"), ElementsAre(a, b));
  const auto of_a = ListUploads(client_, "models/a");
  ASSERT_TRUE(of_a.ok()) << of_a.status();
  ASSERT_EQ(of_a->size(), 1u);
  EXPECT_EQ((*of_a)[0].name, a);
  EXPECT_EQ((*of_a)[0].request_id, "job-1");
  EXPECT_EQ((*of_a)[0].contribution_count, 2);
  EXPECT_GT((*of_a)[0].expire_time, (*of_a)[0].create_time);
  ASSERT_EQ(DeleteUpload(client_, a), absl::OkStatus());
  EXPECT_THAT(Uploads("models/a"), IsEmpty());
  EXPECT_THAT(Uploads("models/-"), ElementsAre(b));
  EXPECT_TRUE(absl::IsNotFound(DeleteUpload(client_, a)));
  EXPECT_TRUE(absl::IsNotFound(ListUploads(client_, "models/none").status()));
}

TEST_F(AdminTest, ADeletionOfAnUploadWhoseAnswerWasLostSucceeds) {
  const std::string name = LeaveAnUpload("a", "job");
  store_.connection().SetFaults({.lose_answer_at = 1});
  EXPECT_EQ(DeleteUpload(client_, name), absl::OkStatus());
  EXPECT_THAT(Uploads("models/a"), IsEmpty());
}

TEST_F(AdminTest, ACollectionReportsWhatIsDead) {
  const TensorSet content({.seed = 1, .bytes = 3 << 20});
  const auto saved = Save(client_, "models/a", content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  ASSERT_EQ(client_.DeleteCheckpoint(saved->name), absl::OkStatus());
  const auto dry = CollectGarbage(client_, {.validate_only = true});
  ASSERT_TRUE(dry.ok()) << dry.status();
  // The grace time keeps it.
  EXPECT_EQ(dry->freed_bytes, 0);
  EXPECT_GE(dry->waiting_bytes, content.total_bytes());
  const auto collected = CollectGarbage(client_);
  ASSERT_TRUE(collected.ok()) << collected.status();
  EXPECT_EQ(collected->waiting_bytes, dry->waiting_bytes);
}

}  // namespace
}  // namespace modelstore::support
