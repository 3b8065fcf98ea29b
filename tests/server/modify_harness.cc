#include "tests/server/modify_harness.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"

namespace modelstore::server {

std::vector<int> Modified::WarningsOf(const std::string& path) const {
  std::vector<int> kinds;
  for (const auto& warning : report.warnings()) {
    if (warning.path() == path) kinds.push_back(warning.kind());
  }
  return kinds;
}

v1::ModifyCheckpointResponse::ParameterFate Modified::FateOf(
    const std::string& key) const {
  for (const auto& fate : report.parameters()) {
    if (fate.key() == key) return fate;
  }
  return {};
}

std::vector<float> RandomFloats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TestTensor ModifyTest::Parameter(const std::string& key,
                                 const std::vector<int64_t>& shape,
                                 const std::vector<float>& values) {
  TestTensor tensor = MakeTensor(key, v1::DTYPE_FLOAT32, shape, BytesOf(values), 1 << 12);
  tensor.tensor.set_role(v1::TENSOR_ROLE_PARAMETER);
  tensor.tensor.set_requires_grad(true);
  return tensor;
}

TestTensor ModifyTest::Buffer(const std::string& key, v1::DType dtype,
                              const std::vector<int64_t>& shape,
                              const std::string& bytes) {
  TestTensor tensor = MakeTensor(key, dtype, shape, bytes);
  tensor.tensor.set_role(v1::TENSOR_ROLE_BUFFER);
  return tensor;
}

TestTensor ModifyTest::Tied(const std::string& key, const TestTensor& to) {
  TestTensor tensor = to;
  tensor.tensor.set_key(key);
  tensor.tensor.set_tied_to(absl::StrCat("model:", to.tensor.key()));
  tensor.tensor.clear_pieces();
  tensor.bytes.clear();
  tensor.chunks.clear();
  return tensor;
}

void ModifyTest::Save(const std::vector<TestTensor>& tensors, const std::string& model) {
  auto saved = harness_.SaveTensors(absl::StrCat("models/", model), tensors);
  ASSERT_TRUE(saved.ok()) << saved.status();
}

Modified ModifyTest::Modify(const std::string& text) {
  v1::ModifyCheckpointRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  if (request.name().empty()) request.set_name("models/m/checkpoints/latest");
  return RunModify(harness_, request);
}

Modified RunModify(Harness& harness, const v1::ModifyCheckpointRequest& request) {
  Modified modified;
  auto session = harness.service().OpenOutbound(absl::StrCat(kStore, "ModifyCheckpoint"),
                                                request.SerializeAsString());
  modified.status = session.status();
  while (modified.status.ok()) {
    auto message = (*session)->Next();
    modified.status = message.status();
    if (!message.ok() || !message->has_value()) break;
    if ((*message)->again_after) {
      absl::SleepFor(*(*message)->again_after);
      continue;
    }
    v1::ModifyCheckpointResponse response;
    EXPECT_TRUE(response.ParseFromString((*message)->head));
    modified.longest_message =
        std::max(modified.longest_message, (*message)->head.size());
    EXPECT_FALSE(modified.result.has_checkpoint()) << "the result comes last";
    if (response.has_report()) ++modified.report_messages;
    modified.report.MergeFrom(response.report());
    if (response.has_result()) modified.result = response.result();
  }
  EXPECT_EQ(modified.status.ok(), modified.result.has_checkpoint());
  return modified;
}

std::map<std::string, std::string> ModifyTest::Bytes(const std::string& name) {
  v1::LoadCheckpointRequest request;
  request.set_name(name);
  auto loaded = harness_.Load(request);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  std::map<std::string, std::string> bytes;
  size_t at = 0;
  for (const v1::Tensor& tensor : loaded->plan.tensors()) {
    std::string& own = bytes[absl::StrCat(tensor.section(), ":", tensor.key())];
    if (!tensor.tied_to().empty()) {
      own = bytes[tensor.tied_to()];
      continue;
    }
    own = loaded->bytes.substr(at, tensor.size_bytes());
    at += tensor.size_bytes();
  }
  return bytes;
}

std::vector<v1::Tensor> ModifyTest::Tensors(const std::string& name) {
  v1::ListTensorsRequest request;
  request.set_parent(name);
  auto listed = harness_.Call<v1::ListTensorsResponse>(
      absl::StrCat(kStore, "ListTensors"), request);
  EXPECT_TRUE(listed.ok()) << listed.status();
  return {listed->tensors().begin(), listed->tensors().end()};
}

v1::Tensor ModifyTest::TensorOf(const std::string& name, const std::string& key) {
  for (const v1::Tensor& tensor : Tensors(name)) {
    if (tensor.key() == key) return tensor;
  }
  ADD_FAILURE() << name << " has no " << key;
  return {};
}

v1::Checkpoint ModifyTest::Full(const std::string& name) {
  v1::GetCheckpointRequest request;
  request.set_name(name);
  request.set_view(v1::CHECKPOINT_VIEW_FULL);
  auto checkpoint =
      harness_.Call<v1::Checkpoint>(absl::StrCat(kStore, "GetCheckpoint"), request);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return checkpoint.ok() ? *checkpoint : v1::Checkpoint();
}

int64_t ModifyTest::LatestVersion(const std::string& model) {
  return harness_.store().models().Get(model)->latest_version();
}

}  // namespace modelstore::server
