// Clients that send rubbish: each gets a clear error, leaves nothing behind, and
// hurts nobody else.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "proto/contract/limits.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using grpc::StatusCode;
using support::Context;
using support::RawTensor;

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
constexpr char kModel[] = "models/m";

class HostileClientTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new support::TempFolder("hostile");
    auto server = support::ServerProcess::Start(
        {.folder = folder_->path(), .data = "", .flags = {"--grace", "0s"}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = server->release();
  }
  static void TearDownTestSuite() {
    delete server_;
    delete folder_;
  }

  HostileClientTest() : channel_(server_->NewChannel()), raw_(channel_) {}

  // Whatever a test sent: the server lives, has no checkpoint of it, and serves
  // the next client.
  void TearDown() override {
    ASSERT_TRUE(server_->Running()) << server_->LogTail();
    v1::ListCheckpointsRequest request;
    request.set_parent(kModel);
    Context context;
    v1::ListCheckpointsResponse response;
    const grpc::Status s = raw_.store().ListCheckpoints(&context, request, &response);
    if (s.ok()) {
      EXPECT_EQ(response.checkpoints_size(), 0);
    } else {
      EXPECT_EQ(s.error_code(), StatusCode::NOT_FOUND) << s.error_message();
    }
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    const support::TensorSet content({.seed = 5, .tensors = 4, .bytes = 2 << 20});
    auto saved = support::Save(*client, "models/healthy", content);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(support::Verify(*client, saved->name, content), absl::OkStatus());
  }

  std::string NewUpload(int contributions = 1) {
    v1::Upload upload;
    const grpc::Status s =
        raw_.CreateUpload(kModel, absl::StrCat("r", ++requests_), &upload, contributions);
    EXPECT_TRUE(s.ok()) << s.error_message();
    return upload.name();
  }

  grpc::Status SendUpload(const std::vector<v1::UploadChunksRequest>& messages) {
    std::vector<std::string> bytes;
    for (const auto& m : messages) bytes.push_back(m.SerializeAsString());
    return support::SendBytes(channel_, kUploadChunks, bytes);
  }
  grpc::Status SendSave(const std::vector<v1::SaveCheckpointRequest>& messages) {
    std::vector<std::string> bytes;
    for (const auto& m : messages) bytes.push_back(m.SerializeAsString());
    return support::SendBytes(channel_, kSaveCheckpoint, bytes);
  }

  // An upload whose only message is spoilt by `spoil`.
  grpc::Status SendModified(const std::function<void(v1::UploadChunksRequest&)>& modify) {
    v1::UploadChunksRequest message = support::ChunkMessage(std::string(1'000, 'x'));
    message.set_upload(NewUpload());
    modify(message);
    return SendUpload({message});
  }
  // The manifest of one spoilt tensor, and no chunks.
  grpc::Status SendTensor(const std::function<void(v1::Tensor&)>& modify) {
    v1::UploadChunksRequest message;
    message.set_upload(NewUpload());
    v1::Tensor& tensor = *message.mutable_manifest()->add_tensors();
    tensor = RawTensor("t", 1, 1'000, 2).tensor;
    modify(tensor);
    message.set_manifest_complete(true);
    return SendUpload({message});
  }
  grpc::Status CommitTensors(const std::vector<v1::Tensor>& tensors,
                             const std::vector<std::string>& chunks) {
    const std::string upload = NewUpload();
    if (grpc::Status s = raw_.Upload(upload, 0, tensors, chunks); !s.ok()) return s;
    v1::Checkpoint made;
    return raw_.Commit(upload, &made);
  }

  static constexpr char kUploadChunks[] =
      "/modelstore.v1.CheckpointTransfer/UploadChunks";
  static constexpr char kSaveCheckpoint[] =
      "/modelstore.v1.CheckpointTransfer/SaveCheckpoint";
  static inline support::TempFolder* folder_ = nullptr;
  static inline support::ServerProcess* server_ = nullptr;
  static inline int requests_ = 0;
  const std::shared_ptr<grpc::Channel> channel_;
  support::RawClient raw_;
};

#define EXPECT_CODE(expression, code)                                 \
  do {                                                                \
    const grpc::Status status_ = (expression);                        \
    EXPECT_EQ(status_.error_code(), code) << status_.error_message(); \
    EXPECT_FALSE(status_.error_message().empty());                    \
  } while (false)

TEST_F(HostileClientTest, ChunksThatAreNotWhatTheyClaimAreRefused) {
  EXPECT_CODE(SendModified([](auto& m) { (*m.mutable_data())[10] ^= 1; }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendModified([](auto& m) { m.mutable_chunks(0)->set_digest("short"); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendModified([](auto& m) { m.mutable_chunks(0)->clear_digest(); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendModified([](auto& m) { m.mutable_chunks(0)->set_size_bytes(999); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendModified([](auto& m) { m.clear_chunks(); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendModified([](auto& m) { m.clear_data(); }),
              StatusCode::INVALID_ARGUMENT);
  for (int64_t size : {int64_t{0}, int64_t{-1}, kHuge, -kHuge - 1, kMaxChunkBytes + 1}) {
    EXPECT_CODE(SendModified([&](auto& m) { m.mutable_chunks(0)->set_size_bytes(size); }),
                StatusCode::INVALID_ARGUMENT);
  }
  // Two sizes whose sum wraps around to the truth.
  EXPECT_CODE(SendModified([](auto& m) {
                m.mutable_chunks(0)->set_size_bytes(kHuge);
                *m.add_chunks() = m.chunks(0);
                m.add_chunks()->set_size_bytes(1'002);
              }),
              StatusCode::INVALID_ARGUMENT);
}

TEST_F(HostileClientTest, HugeShapesAndSizesAreRefused) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{kHuge},
        {-1},
        {-kHuge - 1},
        {int64_t{1} << 40, int64_t{1} << 40},
        {0, kHuge, kHuge},
        {int64_t{1} << 32, int64_t{1} << 32, 0, -5}}) {
    EXPECT_CODE(SendTensor([&](auto& t) {
                  *t.mutable_shape() = {shape.begin(), shape.end()};
                }),
                StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_CODE(SendTensor([](auto& t) {
                for (int i = 0; i < 70; ++i) t.add_shape(1);
              }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(
      SendTensor([](auto& t) { t.mutable_pieces(0)->set_chunk_size_bytes(kHuge); }),
      StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendTensor([](auto& t) { t.mutable_pieces(0)->set_chunk_size_bytes(-4); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendTensor([](auto& t) { t.mutable_pieces(0)->set_chunk_size_bytes(1); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendTensor([](auto& t) {
                t.mutable_pieces(0)->add_offset(kHuge);
                t.mutable_pieces(0)->add_size(kHuge);
              }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendTensor([](auto& t) { t.set_dtype(v1::DTYPE_UNSPECIFIED); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendTensor([](auto& t) { t.set_dtype(static_cast<v1::DType>(77)); }),
              StatusCode::INVALID_ARGUMENT);
}

TEST_F(HostileClientTest, MalformedNamesAreRefused) {
  for (const std::string& key :
       {std::string(), std::string(1'025, 'k'), std::string("a\nb"),
        std::string("\xff\xfe"), std::string("nul\0nul", 7)}) {
    // Bytes that are no UTF-8 cannot be sent by a generated stub, but by hand.
    EXPECT_CODE(SendTensor([&](auto& t) { t.set_key(key); }),
                StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_CODE(SendTensor([](auto& t) { t.set_section("../../etc"); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendTensor([](auto& t) { t.set_tied_to("model:nobody"); }),
              StatusCode::INVALID_ARGUMENT);
  for (const char* parent : {"models/../../etc/passwd", "models/", "models/a/b", "x", "",
                             "models/.hidden", "models/a%2fb"}) {
    v1::Upload upload;
    EXPECT_CODE(raw_.CreateUpload(parent, "", &upload), StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_CODE(raw_.Upload("models/m/uploads/../../../x", 0, {}, {"x"}),
              StatusCode::INVALID_ARGUMENT);
  NewUpload();
  EXPECT_CODE(
      raw_.Upload(absl::StrCat(kModel, "/uploads/", std::string(32, '0')), 0, {}, {"x"}),
      StatusCode::NOT_FOUND);
}

TEST_F(HostileClientTest, StreamsInTheWrongOrderAreRefused) {
  EXPECT_CODE(SendUpload({}), StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendSave({}), StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendUpload({support::ChunkMessage("no upload named")}),
              StatusCode::INVALID_ARGUMENT);

  const RawTensor tensor("t", 1, 1'000, 2);
  v1::SaveCheckpointRequest first;
  first.set_parent(kModel);
  first.set_create_model(true);
  *first.mutable_manifest()->add_tensors() = tensor.tensor;
  v1::SaveCheckpointRequest last;
  last.set_finish(true);
  // Without the chunks; without `finish`; with something after it.
  EXPECT_CODE(SendSave({first, last}), StatusCode::FAILED_PRECONDITION);
  EXPECT_CODE(SendSave({first}), StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendSave({first, last, last}), StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(SendSave({first, first, last}), StatusCode::INVALID_ARGUMENT);

  v1::UploadChunksRequest message;
  message.set_upload(NewUpload(2));
  message.set_contribution(2);
  *message.mutable_manifest()->add_tensors() = tensor.tensor;
  EXPECT_CODE(SendUpload({message}), StatusCode::INVALID_ARGUMENT);
  message.set_contribution(-1);
  EXPECT_CODE(SendUpload({message}), StatusCode::INVALID_ARGUMENT);
  message.set_contribution(0);
  message.set_manifest_complete(true);
  EXPECT_CODE(SendUpload({message, message}), StatusCode::INVALID_ARGUMENT);
}

TEST_F(HostileClientTest, BoxesThatOverlapOrLeaveAGapAreNeverCommitted) {
  const auto rows = [](uint64_t seed, int64_t begin, int64_t end) {
    RawTensor t("t", seed, 1'000, static_cast<int>(end - begin));
    t.tensor.mutable_shape()->Clear();
    t.tensor.add_shape(10'000);
    t.tensor.mutable_pieces(0)->add_offset(begin * 1'000);
    t.tensor.mutable_pieces(0)->add_size((end - begin) * 1'000);
    return t;
  };
  const auto joined = [](const RawTensor& a, const RawTensor& b) {
    v1::Tensor both = a.tensor;
    *both.add_pieces() = b.tensor.pieces(0);
    return both;
  };
  const auto chunks = [](const RawTensor& a, const RawTensor& b) {
    std::vector<std::string> all = a.chunks;
    all.insert(all.end(), b.chunks.begin(), b.chunks.end());
    return all;
  };
  const RawTensor low = rows(1, 0, 6), middle = rows(2, 4, 10), high = rows(3, 7, 10);
  EXPECT_CODE(CommitTensors({joined(low, middle)}, chunks(low, middle)),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(CommitTensors({joined(low, high)}, chunks(low, high)),
              StatusCode::FAILED_PRECONDITION);
  EXPECT_CODE(CommitTensors({low.tensor}, low.chunks), StatusCode::FAILED_PRECONDITION);
  EXPECT_CODE(CommitTensors({rows(4, 5, 11).tensor}, {}), StatusCode::INVALID_ARGUMENT);
  // One name twice, with other bytes; a tensor tied to itself; none of its chunks.
  const RawTensor one("same", 5, 1'000, 1), other("same", 6, 1'000, 1);
  EXPECT_CODE(CommitTensors({one.tensor, other.tensor}, chunks(one, other)),
              StatusCode::INVALID_ARGUMENT);
  v1::Tensor tied = one.tensor;
  tied.clear_pieces();
  tied.set_tied_to("model:same");
  EXPECT_CODE(CommitTensors({tied}, {}), StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(CommitTensors({one.tensor}, {}), StatusCode::FAILED_PRECONDITION);
}

TEST_F(HostileClientTest, ChunksOfAnotherLengthThanTheManifestSaysAreNeverCommitted) {
  // The digest is right, the bytes are fewer than the piece needs.
  RawTensor tensor("t", 1, 1'000, 1);
  tensor.tensor.mutable_shape()->Clear();
  tensor.tensor.add_shape(2'000);
  tensor.tensor.mutable_pieces(0)->set_chunk_size_bytes(2'000);
  const grpc::Status s = CommitTensors({tensor.tensor}, tensor.chunks);
  EXPECT_TRUE(s.error_code() == StatusCode::INVALID_ARGUMENT ||
              s.error_code() == StatusCode::FAILED_PRECONDITION)
      << s.error_code() << ": " << s.error_message();
}

TEST_F(HostileClientTest, MoreThanTheLimitsAllowIsRefused) {
  const std::string upload = NewUpload();
  std::vector<v1::UploadChunksRequest> messages;
  int made = 0;
  while (made <= kMaxTensors) {
    v1::UploadChunksRequest& message = messages.emplace_back();
    if (messages.size() == 1) message.set_upload(upload);
    for (int i = 0; i < 20'000; ++i, ++made) {
      v1::Tensor& t = *message.mutable_manifest()->add_tensors();
      t.set_key(absl::StrCat("t", made));
      t.set_dtype(v1::DTYPE_FLOAT32);
      t.add_shape(0);
    }
  }
  messages.back().set_manifest_complete(true);
  grpc::Status s = SendUpload(messages);
  EXPECT_TRUE(s.error_code() == StatusCode::INVALID_ARGUMENT ||
              s.error_code() == StatusCode::RESOURCE_EXHAUSTED)
      << s.error_code() << ": " << s.error_message();

  v1::FindMissingChunksRequest find;
  find.set_name(upload);
  find.set_digests(std::string(16 * (kMaxDigestsPerCall + 1), 'd'));
  v1::FindMissingChunksResponse found;
  {
    Context context;
    EXPECT_CODE(raw_.transfer().FindMissingChunks(&context, find, &found),
                StatusCode::INVALID_ARGUMENT);
  }
  find.set_digests(std::string(17, 'd'));
  {
    Context context;
    EXPECT_CODE(raw_.transfer().FindMissingChunks(&context, find, &found),
                StatusCode::INVALID_ARGUMENT);
  }
  v1::UploadChunksRequest large;
  large.set_upload(upload);
  large.set_data(std::string(32 << 20, 'x'));
  EXPECT_CODE(SendUpload({large}), StatusCode::RESOURCE_EXHAUSTED);

  v1::Upload made_upload;
  EXPECT_CODE(raw_.CreateUpload(kModel, std::string(129, 'r'), &made_upload),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(raw_.CreateUpload(kModel, "", &made_upload, kMaxContributions + 1),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(raw_.CreateUpload(kModel, "", &made_upload, -1),
              StatusCode::INVALID_ARGUMENT);
}

// A length-delimited field on the wire.
std::string Field(int number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t n = bytes.size();
  for (; n > 0x7f; n >>= 7) out.push_back(static_cast<char>((n & 0x7f) | 0x80));
  out.push_back(static_cast<char>(n));
  return out + bytes;
}

TEST_F(HostileClientTest, ValuesNestedTooDeepAreRefused) {
  for (int depth : {33, 65, 99, 5'000}) {
    // By hand: the generated code would not even build the deepest.
    v1::Value none;
    none.set_null_value(v1::NULL_VALUE);
    std::string value = none.SerializeAsString();
    for (int i = 0; i < depth; ++i) {
      value = Field(v1::Value::kListValueFieldNumber,
                    Field(v1::ListValue::kValuesFieldNumber, value));
    }
    const std::string section = Field(v1::Section::kNameFieldNumber, "extra") +
                                Field(v1::Section::kValueFieldNumber, value);
    v1::SaveCheckpointRequest first;
    first.set_parent(kModel);
    first.set_create_model(true);
    v1::SaveCheckpointRequest last;
    last.set_finish(true);
    const std::string message =
        first.SerializeAsString() +
        Field(v1::SaveCheckpointRequest::kManifestFieldNumber,
              Field(v1::ManifestPart::kSectionsFieldNumber, section));
    EXPECT_CODE(support::SendBytes(channel_, kSaveCheckpoint,
                                   {message, last.SerializeAsString()}),
                StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(HostileClientTest, LoadsOfWhatDoesNotExistAreRefused) {
  auto client = support::ConnectTo(server_->address());
  ASSERT_TRUE(client.ok());
  const support::TensorSet content({.seed = 5, .tensors = 4, .bytes = 2 << 20});
  auto saved = support::Save(*client, "models/healthy", content);
  ASSERT_TRUE(saved.ok()) << saved.status();
  const auto load = [&](const std::function<void(v1::LoadCheckpointRequest&)>& modify) {
    v1::LoadCheckpointRequest request;
    request.set_name(saved->name);
    modify(request);
    std::string bytes;
    return raw_.Load(request, &bytes);
  };
  EXPECT_CODE(load([](auto& r) { r.set_name("models/healthy/checkpoints/99999"); }),
              StatusCode::NOT_FOUND);
  EXPECT_CODE(load([](auto& r) {
                r.set_name("models/healthy/checkpoints/99999999999999999999");
              }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(load([](auto& r) { r.set_device("gpu:9"); }), StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(load([](auto& r) { r.mutable_selection()->add_include_patterns("(("); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(load([](auto& r) { r.mutable_selection()->add_sections("absent"); }),
              StatusCode::NOT_FOUND);
  EXPECT_CODE(load([](auto& r) { r.set_start_position(kHuge); }),
              StatusCode::OUT_OF_RANGE);
  EXPECT_CODE(load([](auto& r) { r.set_end_position(kHuge); }), StatusCode::OUT_OF_RANGE);
  EXPECT_CODE(load([](auto& r) { r.set_target_dtype(v1::DTYPE_INT64); }),
              StatusCode::INVALID_ARGUMENT);
  EXPECT_CODE(load([](auto& r) {
                v1::RowSlice& slice = *r.add_slices();
                slice.set_tensor("layer.0.weight");
                slice.set_end(kHuge);
              }),
              StatusCode::OUT_OF_RANGE);
  EXPECT_CODE(load([](auto& r) {
                r.clear_name();
                r.set_resume_token("not a token");
              }),
              StatusCode::INVALID_ARGUMENT);
  const grpc::Status s = load([](auto& r) { r.set_start_position(-1); });
  EXPECT_FALSE(s.ok());
}

TEST_F(HostileClientTest, BytesThatAreNoMessageAreAnswered) {
  std::mt19937_64 random(TestSeed());
  const std::vector<std::string> methods = {
      kUploadChunks,
      kSaveCheckpoint,
      "/modelstore.v1.CheckpointTransfer/LoadCheckpoint",
      "/modelstore.v1.CheckpointTransfer/CreateUpload",
      "/modelstore.v1.CheckpointTransfer/FindMissingChunks",
      "/modelstore.v1.CheckpointTransfer/CommitUpload",
      "/modelstore.v1.ModelStore/CreateModel",
      "/modelstore.v1.ModelStore/ListCheckpoints",
      "/modelstore.v1.ModelStore/CollectGarbage",
      "/modelstore.v1.ModelStore/NoSuchMethod",
      "/nobody.Knows/This"};
  v1::SaveCheckpointRequest whole;
  whole.set_parent(kModel);
  const RawTensor tensor("t", 1, 1'000, 2);
  *whole.mutable_manifest()->add_tensors() = tensor.tensor;
  whole.mutable_checkpoint()->set_description("a description");
  int refused = 0, sent = 0;
  for (int i = 0; i < TestRounds(600); ++i) {
    const std::string& method = methods[random() % methods.size()];
    std::string bytes;
    if (random() % 2 == 0) {
      bytes = support::RandomBytes(random(), random() % 3'000);
    } else {
      // Half a message, or a whole one with a byte changed.
      bytes = whole.SerializeAsString();
      if (random() % 2 == 0) bytes.resize(random() % bytes.size());
      if (!bytes.empty()) bytes[random() % bytes.size()] ^= static_cast<char>(random());
    }
    const bool half_close = random() % 4 != 0;
    const grpc::Status s = support::SendBytes(channel_, method, {bytes}, half_close);
    ++sent;
    refused += s.ok() ? 0 : 1;
    EXPECT_NE(s.error_code(), StatusCode::DEADLINE_EXCEEDED) << method;
    // UNAVAILABLE would mean that the connection broke.
    EXPECT_NE(s.error_code(), StatusCode::UNAVAILABLE) << method << s.error_message();
    ASSERT_TRUE(server_->Running()) << server_->LogTail();
  }
  std::printf("garbage: %d messages sent, %d refused, server unhurt\n", sent, refused);
}

TEST_F(HostileClientTest, HugeMetadataIsRefused) {
  for (size_t size : {size_t{64} << 10, size_t{1} << 20}) {
    // A connection of its own: the server may close it.
    support::RawClient other(server_->NewChannel());
    Context context(std::chrono::milliseconds(10'000));
    context.AddMetadata("x-rubbish", std::string(size, 'm'));
    v1::ServerInfo info;
    EXPECT_FALSE(other.store().GetServerInfo(&context, {}, &info).ok()) << size;
  }
}

TEST_F(HostileClientTest, PagesThatWereNeverGivenAreRefused) {
  NewUpload();
  v1::ListCheckpointsRequest request;
  request.set_parent(kModel);
  request.set_page_token("rubbish");
  v1::ListCheckpointsResponse response;
  {
    Context context;
    EXPECT_CODE(raw_.store().ListCheckpoints(&context, request, &response),
                StatusCode::INVALID_ARGUMENT);
  }
  request.clear_page_token();
  request.set_page_size(-1);
  {
    Context context;
    EXPECT_CODE(raw_.store().ListCheckpoints(&context, request, &response),
                StatusCode::INVALID_ARGUMENT);
  }
}

}  // namespace
}  // namespace modelstore
