// Modifications of small checkpoints, over the store in memory.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "modelstore/v1/operations.pb.h"
#include "tests/server/harness.h"

namespace modelstore::server {

// What ModifyCheckpoint answered.
struct Modified {
  absl::Status status;
  v1::ModifyCheckpointResponse::Report report;
  v1::ModifyCheckpointResponse::Result result;
  int report_messages = 0;
  size_t longest_message = 0;

  // Kinds of the warnings about a path.
  std::vector<int> WarningsOf(const std::string& path) const;
  // Of one parameter; a default one, whose fate is unspecified, if it is not listed.
  v1::ModifyCheckpointResponse::ParameterFate FateOf(const std::string& key) const;
};

// Bytes of values, and the other way round.
template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}
template <typename T>
std::vector<T> ValuesOf(const std::string& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

// Reproducible values around zero.
std::vector<float> RandomFloats(size_t count, uint32_t seed);

class ModifyTest : public testing::Test {
 protected:
  // A parameter of `model` that is trained.
  static TestTensor Parameter(const std::string& key, const std::vector<int64_t>& shape,
                              const std::vector<float>& values);
  static TestTensor Buffer(const std::string& key, v1::DType dtype,
                           const std::vector<int64_t>& shape, const std::string& bytes);
  // The same storage as `to`, under another key.
  static TestTensor Tied(const std::string& key, const TestTensor& to);

  // Saves `tensors` as the next version of models/{model}.
  void Save(const std::vector<TestTensor>& tensors, const std::string& model = "m");
  // `request` is text, such as `edits { cast { dtype: DTYPE_FLOAT16 } }`; the name is
  // models/m/checkpoints/latest unless it is in the text.
  Modified Modify(const std::string& request);
  // Every tensor's bytes by `section:key`.
  std::map<std::string, std::string> Bytes(const std::string& name);
  // ... as ListTensors describes it.
  std::vector<v1::Tensor> Tensors(const std::string& name);
  v1::Tensor TensorOf(const std::string& name, const std::string& key);
  v1::Checkpoint Full(const std::string& name);
  int64_t LatestVersion(const std::string& model = "m");

  // So that a disk fills up only where a test fills it.
  static storage::StoreOptions WithoutReserve() {
    storage::StoreOptions options;
    options.reserve_bytes = 0;
    return options;
  }
  Harness harness_{WithoutReserve()};
};

// Drives one call to its end.
Modified RunModify(Harness& harness, const v1::ModifyCheckpointRequest& request);

}  // namespace modelstore::server
