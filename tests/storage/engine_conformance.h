// What every engine promises behind the two seams, as one parameterised suite. An
// engine takes part by giving an EngineFixture and instantiating EngineConformance.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "storage/engine.h"
#include "tests/storage/test_bytes.h"

namespace modelstore::storage {

// A disk with one store on it, and what can happen to it.
class EngineFixture {
 public:
  // The calls of the seams that change something.
  enum class Call { kCatalogWrite, kPackAppend, kPackFinish, kPackPublish, kPackDrop };

  virtual ~EngineFixture() = default;

  // Opens the store; at most one engine is open at a time. Its chunk store is
  // closed yet.
  virtual absl::StatusOr<Engine> Open() = 0;
  // With no engine open: forgets whatever was not durable.
  virtual void LosePower() = 0;
  // With `full`, not a byte more fits on the disk.
  virtual void SetFull(bool full) = 0;
  // The next call of this kind fails, or, with `for_good`, every later one.
  virtual void Fail(Call call, bool for_good) = 0;
  virtual void StopFailing() = 0;
  // With no engine open: inverts one bit of the bytes of a published chunk.
  virtual void FlipBit(ChunkId chunk) = 0;
};

struct EngineParam {
  std::string name;
  std::function<std::unique_ptr<EngineFixture>()> make_fixture;
};

class EngineConformance : public ::testing::TestWithParam<EngineParam> {
 protected:
  void SetUp() override;
  void TearDown() override;

  // Closes the engine if one is open, and opens it with its chunk store.
  void Reopen();
  void Close() { engine_ = Engine(); }

  Catalog& catalog() { return *engine_.catalog; }
  ChunkStore& chunks() { return *engine_.chunks; }
  EngineFixture& fixture() { return *fixture_; }

  // The value under a key of kRecords, or what kept it from being read.
  std::string Value(const std::string& key);
  absl::Status Put(const std::string& key, const std::string& value,
                   Durability durability = Durability::kDurable);
  // Keys of a range of kRecords, joined by a blank.
  std::string Keys(const KeyRange& range);

  // Writes and publishes a pack of these chunks.
  absl::Status WritePack(uint64_t pack, const std::vector<std::string>& contents);
  // A chunk's bytes, or what kept it from being read.
  std::string Chunk(uint64_t pack, uint32_t sequence);
  std::vector<uint64_t> Packs();

 private:
  std::unique_ptr<EngineFixture> fixture_;
  Engine engine_;
};

}  // namespace modelstore::storage
