// Uploads: opened, filled by several workers, committed once.
#include "absl/strings/str_cat.h"
#include "tests/server/harness.h"

namespace modelstore::server {
namespace {

class UploadsTest : public testing::Test {
 protected:
  template <typename Response>
  absl::StatusOr<Response> Call(const char* method,
                                const google::protobuf::Message& request) {
    return harness_.Call<Response>(absl::StrCat(kTransfer, method), request);
  }

  absl::StatusOr<v1::Upload> Create(const std::string& request_id,
                                    int contributions = 1) {
    v1::CreateUploadRequest request;
    request.set_parent("models/m");
    request.set_create_model(true);
    request.set_request_id(request_id);
    request.mutable_upload()->set_contribution_count(contributions);
    request.mutable_upload()->mutable_checkpoint()->set_epoch(7);
    return Call<v1::Upload>("CreateUpload", request);
  }

  // One worker's stream: its part of the manifest, then the chunks.
  static std::vector<v1::UploadChunksRequest> Stream(const v1::Upload& upload,
                                                     int contribution,
                                                     const TestTensor& tensor) {
    std::vector<v1::UploadChunksRequest> requests(1);
    requests[0].set_upload(upload.name());
    requests[0].set_contribution(contribution);
    *requests[0].mutable_manifest()->add_tensors() = tensor.tensor;
    requests[0].set_manifest_complete(true);
    for (const auto& chunk : tensor.chunks) AddChunk(&requests.emplace_back(), chunk);
    return requests;
  }

  absl::StatusOr<v1::Checkpoint> Commit(const v1::Upload& upload) {
    v1::CommitUploadRequest request;
    request.set_name(upload.name());
    return Call<v1::Checkpoint>("CommitUpload", request);
  }

  // Half of a tensor of 8 rows of 4 bytes.
  static TestTensor Half(int which, const std::string& bytes) {
    TestTensor half =
        MakeTensor("w", v1::DTYPE_UINT8, {4, 4}, bytes.substr(16 * which, 16), 8);
    half.tensor.set_shape(0, 8);
    v1::Piece* piece = half.tensor.mutable_pieces(0);
    piece->add_offset(4 * which);
    piece->add_offset(0);
    piece->add_size(4);
    piece->add_size(4);
    return half;
  }

  Harness harness_;
};

TEST_F(UploadsTest, TwoWorkersEachSaveHalfOfATensorAndAnyRowsLoad) {
  const std::string bytes = MakeBytes(32, 1);
  auto upload = Create("job", 2);
  ASSERT_TRUE(upload.ok()) << upload.status();
  EXPECT_EQ(Create("job", 2)->name(), upload->name());
  ASSERT_TRUE(harness_.Upload(Stream(*upload, 1, Half(1, bytes))).ok());
  EXPECT_THAT(Commit(*upload), FailsWith(absl::StatusCode::kFailedPrecondition, "0"));
  auto sent = harness_.Upload(Stream(*upload, 0, Half(0, bytes)));
  ASSERT_TRUE(sent.ok()) << sent.status();
  EXPECT_EQ(sent->received_chunks(), 2);
  EXPECT_EQ(sent->received_bytes(), 16);
  auto committed = Commit(*upload);
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_EQ(committed->epoch(), 7);
  EXPECT_EQ(Commit(*upload)->version(), committed->version());

  for (int begin = 0; begin < 8; ++begin) {
    for (int end = begin; end <= 8; ++end) {
      v1::LoadCheckpointRequest load;
      load.set_name(committed->name());
      v1::RowSlice* rows = load.add_slices();
      rows->set_tensor("model:w");
      rows->set_begin(begin);
      rows->set_end(end);
      auto loaded = harness_.Load(load);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      EXPECT_EQ(loaded->bytes, bytes.substr(4 * begin, 4 * (end - begin)));
    }
  }
}

TEST_F(UploadsTest, AValueMayNameATensorOfAnotherContributionAndOfNone) {
  const auto save = [&](const char* named) {
    auto upload = Create(named, 2);
    auto first =
        Stream(*upload, 0, MakeTensor("w", v1::DTYPE_UINT8, {4}, MakeBytes(4, 1)));
    v1::Section* section = first[0].mutable_manifest()->add_sections();
    section->set_name("extra");
    section->mutable_value()->set_tensor_value(named);
    EXPECT_TRUE(harness_.Upload(first).ok());
    TestTensor other = MakeTensor("there", v1::DTYPE_UINT8, {4}, MakeBytes(4, 2));
    other.tensor.set_section("extra");
    EXPECT_TRUE(harness_.Upload(Stream(*upload, 1, other)).ok());
    return Commit(*upload);
  };
  auto saved = save("there");
  EXPECT_TRUE(saved.ok()) << saved.status();
  EXPECT_THAT(save("w"),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        "section \"extra\", value w: no tensor of the section"));
}

TEST_F(UploadsTest, FindMissingReportsWhatIsStillToBeSent) {
  const TestTensor tensor = MakeTensor("w", v1::DTYPE_UINT8, {24}, MakeBytes(24, 2), 8);
  auto upload = Create("job");
  ASSERT_TRUE(upload.ok()) << upload.status();
  v1::FindMissingChunksRequest ask;
  ask.set_name(upload->name());
  ask.set_digests(tensor.tensor.pieces(0).chunk_digests());
  auto missing = Call<v1::FindMissingChunksResponse>("FindMissingChunks", ask);
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_THAT(missing->missing(), testing::ElementsAre(0, 1, 2));
  v1::UploadChunksRequest middle;
  middle.set_upload(upload->name());
  AddChunk(&middle, tensor.chunks[1]);
  ASSERT_TRUE(harness_.Upload({middle}).ok());
  missing = Call<v1::FindMissingChunksResponse>("FindMissingChunks", ask);
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_THAT(missing->missing(), testing::ElementsAre(0, 2));

  ASSERT_TRUE(harness_.Upload(Stream(*upload, 0, tensor)).ok());
  ASSERT_TRUE(Commit(*upload).ok());
  ask.set_name("models/m/checkpoints/latest");
  missing = Call<v1::FindMissingChunksResponse>("FindMissingChunks", ask);
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_EQ(missing->missing_size(), 0);
  EXPECT_EQ(missing->base_checkpoint(), "models/m/checkpoints/1");
  ask.set_digests("odd");
  EXPECT_THAT(Call<v1::FindMissingChunksResponse>("FindMissingChunks", ask),
              FailsWith(absl::StatusCode::kInvalidArgument, "digests"));
}

TEST_F(UploadsTest, AnUploadIsListedUntilItIsDeleted) {
  auto upload = Create("job", 3);
  ASSERT_TRUE(upload.ok()) << upload.status();
  v1::ListUploadsRequest list;
  list.set_parent("models/-");
  auto listed =
      harness_.Call<v1::ListUploadsResponse>(absl::StrCat(kStore, "ListUploads"), list);
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->uploads_size(), 1);
  EXPECT_EQ(listed->uploads(0).contribution_count(), 3);
  v1::DeleteUploadRequest gone;
  gone.set_name(upload->name());
  ASSERT_TRUE(Call<google::protobuf::Empty>("DeleteUpload", gone).ok());
  v1::GetUploadRequest get;
  get.set_name(upload->name());
  EXPECT_THAT(Call<v1::Upload>("GetUpload", get),
              FailsWith(absl::StatusCode::kNotFound, ""));
  EXPECT_THAT(harness_.Upload(Stream(*upload, 0, Half(0, MakeBytes(32, 1)))),
              FailsWith(absl::StatusCode::kNotFound, ""));
  EXPECT_THAT(Commit(*upload), FailsWith(absl::StatusCode::kNotFound, ""));
}

TEST_F(UploadsTest, AnUploadOfNothingIsRefusedUnlessTheCommitSaysSo) {
  auto upload = Create("job");
  ASSERT_TRUE(upload.ok()) << upload.status();
  v1::UploadChunksRequest nothing;
  nothing.set_upload(upload->name());
  nothing.set_manifest_complete(true);
  ASSERT_TRUE(harness_.Upload({nothing}).ok());
  EXPECT_THAT(Commit(*upload),
              FailsWith(absl::StatusCode::kInvalidArgument, "allow_empty"));
  v1::CommitUploadRequest request;
  request.set_name(upload->name());
  request.set_allow_empty(true);
  EXPECT_TRUE(Call<v1::Checkpoint>("CommitUpload", request).ok());
  EXPECT_TRUE(Commit(*upload).ok()) << "it is committed already";
}

TEST_F(UploadsTest, GetUploadReportsTheStateOfContributions) {
  auto upload = Create("job", 2);
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE(harness_.Upload(Stream(*upload, 1, Half(1, MakeBytes(32, 1)))).ok());
  v1::GetUploadRequest get;
  get.set_name(upload->name());
  auto state = Call<v1::Upload>("GetUpload", get);
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_EQ(state->contributions_size(), 1);
  EXPECT_EQ(state->contributions(0).index(), 1);
  EXPECT_TRUE(state->contributions(0).complete());
  EXPECT_EQ(state->sealed_bytes(), state->received_bytes());
  EXPECT_EQ(state->received_bytes(), 16);
}

TEST_F(UploadsTest, BoxesThatOverlapWithOtherBytesAreRefused) {
  const std::string bytes = MakeBytes(32, 1);
  auto upload = Create("job", 2);
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE(harness_.Upload(Stream(*upload, 0, Half(0, bytes))).ok());
  ASSERT_TRUE(harness_.Upload(Stream(*upload, 1, Half(0, MakeBytes(32, 2)))).ok());
  EXPECT_THAT(Commit(*upload), FailsWith(absl::StatusCode::kInvalidArgument, "w"));
}

TEST_F(UploadsTest, BadStreamsAreRefusedByField) {
  auto upload = Create("job", 2);
  ASSERT_TRUE(upload.ok()) << upload.status();
  const TestTensor tensor = MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 2));
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(harness_.Upload({}), FailsWith(invalid, "without a message"));
  EXPECT_THAT(harness_.Upload(Stream(*upload, 2, tensor)),
              FailsWith(invalid, "contribution"));
  EXPECT_THAT(harness_.Upload(Stream(*upload, -1, tensor)),
              FailsWith(invalid, "contribution"));
  auto requests = Stream(*upload, 0, tensor);
  requests[1].mutable_chunks(0)->clear_digest();
  EXPECT_THAT(harness_.Upload(requests), FailsWith(invalid, "chunks[0].digest"));
  requests = Stream(*upload, 0, tensor);
  requests[0]
      .mutable_manifest()
      ->mutable_tensors(0)
      ->mutable_pieces(0)
      ->clear_chunk_digests();
  EXPECT_THAT(harness_.Upload(requests), FailsWith(invalid, "chunk_digests"));
  v1::CreateUploadRequest create;
  create.set_parent("models/m");
  create.mutable_upload()->set_contribution_count(-1);
  EXPECT_THAT(Call<v1::Upload>("CreateUpload", create),
              FailsWith(invalid, "upload.contribution_count"));
  create.mutable_upload()->set_contribution_count(1);
  create.mutable_time_to_live()->set_seconds(-5);
  EXPECT_THAT(Call<v1::Upload>("CreateUpload", create),
              FailsWith(invalid, "time_to_live"));
}

TEST_F(UploadsTest, AnUploadWithoutABaseSharesNothing) {
  const TestTensor tensor = MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 2));
  auto first = Create("job");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_FALSE(first->has_committed_version());
  ASSERT_TRUE(harness_.Upload(Stream(*first, 0, tensor)).ok());
  ASSERT_TRUE(Commit(*first).ok());
  v1::CreateUploadRequest create;
  create.set_parent("models/m");
  create.set_no_base(true);
  create.set_request_id("anew");
  auto upload = Call<v1::Upload>("CreateUpload", create);
  ASSERT_TRUE(upload.ok()) << upload.status();
  EXPECT_EQ(upload->checkpoint().base_checkpoint(), "");
  v1::FindMissingChunksRequest ask;
  ask.set_name(upload->name());
  ask.set_digests(DigestOf(tensor.chunks[0]));
  auto missing = Call<v1::FindMissingChunksResponse>("FindMissingChunks", ask);
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_EQ(missing->missing_size(), 1);
  // It is part of what the request_id stands for.
  create.set_no_base(false);
  EXPECT_THAT(Call<v1::Upload>("CreateUpload", create),
              FailsWith(absl::StatusCode::kInvalidArgument, "request_id"));
  create.set_no_base(true);
  create.mutable_upload()->mutable_checkpoint()->set_base_checkpoint(
      "models/m/checkpoints/1");
  EXPECT_THAT(
      Call<v1::Upload>("CreateUpload", create),
      FailsWith(absl::StatusCode::kInvalidArgument, "upload.checkpoint.base_checkpoint"));
}

TEST_F(UploadsTest, ACommittedUploadTakesNothingMore) {
  const TestTensor tensor = MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 2));
  auto upload = Create("job");
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE(harness_.Upload(Stream(*upload, 0, tensor)).ok());
  ASSERT_TRUE(Commit(*upload).ok());
  EXPECT_THAT(harness_.Upload(Stream(*upload, 0, tensor)),
              FailsWith(absl::StatusCode::kFailedPrecondition, "committed"));
}

TEST_F(UploadsTest, AStreamInHandIsRefusedOnceAnotherCommitsOrDeletesItsUpload) {
  const TestTensor tensor = MakeTensor("w", v1::DTYPE_UINT8, {8}, MakeBytes(8, 2));
  for (const bool committed : {true, false}) {
    auto upload = Create(committed ? "committed" : "deleted");
    ASSERT_TRUE(upload.ok()) << upload.status();
    const auto stream = Stream(*upload, 0, tensor);
    ASSERT_TRUE(harness_.Upload(stream).ok());
    auto session =
        harness_.service().OpenInbound(absl::StrCat(kTransfer, "UploadChunks"));
    ASSERT_TRUE(session.ok()) << session.status();
    auto send = [&](const v1::UploadChunksRequest& request) {
      const std::string bytes = request.SerializeAsString();
      const absl::string_view view(bytes);
      return (*session)->OnMessage({view});
    };
    v1::UploadChunksRequest first;
    first.set_upload(upload->name());
    ASSERT_TRUE(send(first).ok());
    if (committed) {
      ASSERT_TRUE(Commit(*upload).ok());
    } else {
      v1::DeleteUploadRequest gone;
      gone.set_name(upload->name());
      ASSERT_TRUE(Call<google::protobuf::Empty>("DeleteUpload", gone).ok());
    }
    const auto code =
        committed ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kNotFound;
    EXPECT_EQ(send(stream[0]).code(), code);
    EXPECT_EQ(send(stream[1]).code(), code);
  }
}

}  // namespace
}  // namespace modelstore::server
