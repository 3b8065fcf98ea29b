// Bits flipped in the packs of a store: VerifyCheckpoint names exactly the tensors,
// of every version, whose bytes were hit, and CompareCheckpoints never measures them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "modelstore/v1/operations.pb.h"
#include "server/method_table.h"
#include "tests/fault/store_scenario.h"
#include "tests/storage/rocks_folder.h"
#include "tests/support/fault_file_system.h"
#include "tests/support/seed.h"

namespace modelstore::storage {
namespace {

// storage has records of that name, too.
namespace api = ::modelstore::v1;

constexpr int kRounds = 60;

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Where a chunk's bytes lie in a pack; absent for one that lies in the catalog.
struct Place {
  std::string file;
  int64_t offset = 0;
};
std::optional<Place> Find(const RocksFolder& folder, const std::string& chunk) {
  for (const std::string& file : folder.Files("packs", ".sst")) {
    const size_t at = ReadFile(file).find(chunk);
    if (at != std::string::npos) return Place{file, static_cast<int64_t>(at)};
  }
  return std::nullopt;
}

template <typename Response>
absl::StatusOr<std::vector<Response>> Stream(server::Service& service,
                                             const std::string& method,
                                             const google::protobuf::Message& request) {
  auto session = service.OpenOutbound(absl::StrCat("/modelstore.v1.ModelStore/", method),
                                      request.SerializeAsString());
  if (!session.ok()) return session.status();
  std::vector<Response> responses;
  for (;;) {
    auto message = (*session)->Next();
    if (!message.ok()) return message.status();
    if (!message->has_value()) return responses;
    if (!(*message)->again_after)
      responses.emplace_back().ParseFromString((*message)->head);
  }
}

std::string NameOf(int64_t version) {
  return absl::StrCat("models/", kScenarioModel, "/checkpoints/", version);
}

std::set<std::string> DamagedOf(server::Service& service, int64_t version) {
  api::VerifyCheckpointRequest request;
  request.set_name(NameOf(version));
  std::set<std::string> damaged;
  auto responses =
      Stream<api::VerifyCheckpointResponse>(service, "VerifyCheckpoint", request);
  EXPECT_TRUE(responses.ok()) << responses.status();
  if (!responses.ok()) return damaged;
  for (const auto& response : *responses) {
    if (response.has_finding()) damaged.insert(response.finding().tensor());
  }
  EXPECT_EQ(responses->back().result().damaged_tensors(),
            static_cast<int64_t>(damaged.size()));
  return damaged;
}

std::set<std::string> TensorsWith(const Content& content, const std::string& chunk) {
  std::set<std::string> names;
  for (const auto& [key, chunks] : content.tensors) {
    for (const std::string& c : chunks) {
      if (c == chunk) names.insert(absl::StrCat("model:", key));
    }
  }
  return names;
}

TEST(VerifyDamageTest, ExactlyTheTensorsThatWereHitAreNamed) {
  std::mt19937_64 random(TestSeed());
  RocksFolder original;
  const Scenario scenario(original.path());
  const auto& versions = scenario.known().versions;
  int hits = 0, refused = 0;
  for (int round = 0; round < TestRounds(kRounds) && !HasFailure(); ++round) {
    RocksFolder damaged_copy;
    CopyFolder(original.path(), damaged_copy.path());
    const auto victim = std::next(versions.begin(), random() % versions.size());
    const std::vector<std::string> chunks = victim->second.Chunks();
    const std::string& chunk = chunks[random() % chunks.size()];
    const std::optional<Place> place = Find(damaged_copy, chunk);
    if (!place) continue;
    FlipBitAt(place->file, place->offset + static_cast<int64_t>(random() % chunk.size()),
              static_cast<int>(random() % 8));
    ++hits;
    auto store =
        OpenStore(damaged_copy.path(),
                  std::make_shared<testing::FaultFileSystem>(damaged_copy.path()));
    ASSERT_TRUE(store.ok()) << store.status();
    auto service = server::MakeService(store->get(), {});
    for (const auto& [version, content] : versions) {
      EXPECT_EQ(DamagedOf(*service, version), TensorsWith(content, chunk))
          << "version " << version;
    }
    // Measured against each other version, it is read where it differs.
    for (const auto& [version, content] : versions) {
      api::CompareCheckpointsRequest request;
      request.set_name(NameOf(version));
      request.set_other(NameOf(victim->first));
      request.set_with_norms(true);
      auto responses = Stream<api::CompareCheckpointsResponse>(
          *service, "CompareCheckpoints", request);
      if (version == victim->first) {
        EXPECT_TRUE(responses.ok()) << "nothing is read: " << responses.status();
      } else if (!responses.ok()) {
        EXPECT_TRUE(absl::IsDataLoss(responses.status())) << responses.status();
        ++refused;
      } else {
        // None of the damaged tensors was measured.
        for (const auto& response : *responses) {
          for (const auto& tensor : response.differences().tensors()) {
            EXPECT_FALSE(tensor.has_norm() &&
                         TensorsWith(victim->second, chunk).contains(tensor.tensor()))
                << tensor.tensor();
          }
        }
      }
    }
  }
  EXPECT_GT(hits, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace modelstore::storage
