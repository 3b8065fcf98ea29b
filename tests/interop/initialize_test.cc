// New parameters, held against those that Python's PyTorch gives after
// torch.manual_seed() on this machine.
#include "server/modify/initialize.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "proto/contract/architecture/text.h"
#include "tests/interop/python.h"
#include "tests/support/temp_folder.h"

namespace modelstore::server::modify {
namespace {

std::string BytesOf(const TensorSource& source) {
  std::string bytes;
  const auto status = source.Visit(0, source.size_bytes(), [&](absl::string_view part) {
    bytes.append(part.data(), part.size());
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  return bytes;
}

std::vector<NewTensor> Initialize(const std::string& text, const std::string& how) {
  v1::Initialization initialization;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(how, &initialization)) << how;
  auto module = ParseModule("module", text);
  EXPECT_TRUE(module.ok()) << module.status();
  auto tensors = InitializeModule(*module, initialization);
  EXPECT_TRUE(tensors.ok()) << text << ": " << tensors.status();
  return tensors.ok() ? *std::move(tensors) : std::vector<NewTensor>();
}

TEST(Initialize, GivesTheBytesThatPythonGivesAfterManualSeed) {
  const support::TempFolder folder("initialize");
  const std::string file = absl::StrCat(folder.path(), "/bytes");
  const auto cases = RunPython("initialize.py " + file);
  ASSERT_GT(cases.size(), 100u);
  std::ifstream bytes(file, std::ios::binary);
  for (const auto& object : cases) {
    const std::string& text = object.fields().at("text").string_value();
    const std::string& how = object.fields().at("how").string_value();
    const auto& keys = object.fields().at("keys").list_value().values();
    const std::vector<NewTensor> tensors = Initialize(text, how);
    ASSERT_EQ(tensors.size(), static_cast<size_t>(keys.size())) << text;
    for (int t = 0; t < keys.size(); ++t) {
      EXPECT_EQ(tensors[t].spec.key, keys[t].string_value()) << text;
      std::string expected(tensors[t].source->size_bytes(), '\0');
      ASSERT_TRUE(bytes.read(expected.data(), static_cast<int64_t>(expected.size())));
      EXPECT_TRUE(BytesOf(*tensors[t].source) == expected)
          << text << ", " << how << ": " << tensors[t].spec.key << " differs";
    }
  }
  EXPECT_EQ(bytes.peek(), std::ifstream::traits_type::eof());
}

TEST(Initialize, ReadsAnyRangeOfWhatItDrew) {
  const auto tensors = Initialize("Embedding(1237, 333)", "seed: 3");
  const TensorSource& source = *tensors[0].source;
  const std::string whole = BytesOf(source);
  for (const int64_t begin : {0, 4, 524'284, 524'288, 1'572'864, 1'647'680}) {
    for (const int64_t size : {0, 4, 64, 600'000}) {
      const int64_t end = std::min(begin + size, source.size_bytes());
      std::string part;
      auto status = source.Visit(begin, end, [&](absl::string_view bytes) {
        part.append(bytes.data(), bytes.size());
        return absl::OkStatus();
      });
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_TRUE(part == whole.substr(begin, end - begin)) << begin << " to " << end;
    }
  }
}

TEST(Initialize, TwoAtOnceWithOneSeedDrawTheSameBytes) {
  const std::string alone = BytesOf(*Initialize("Linear(500, 700)", "seed: 9")[0].source);
  std::vector<std::string> together(4);
  std::vector<std::thread> threads;
  for (std::string& bytes : together) {
    threads.emplace_back(
        [&] { bytes = BytesOf(*Initialize("Linear(500, 700)", "seed: 9")[0].source); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& bytes : together) EXPECT_TRUE(bytes == alone);
  EXPECT_FALSE(BytesOf(*Initialize("Linear(500, 700)", "seed: 10")[0].source) == alone);
}

TEST(Initialize, RefusesMoreThanOneEditMakes) {
  auto module = ParseModule("module", "Linear(1000000, 1000000)");
  ASSERT_TRUE(module.ok());
  auto tensors = InitializeModule(*module, {});
  EXPECT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace modelstore::server::modify
