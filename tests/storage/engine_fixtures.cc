// The engines that the conformance suite runs over.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/memory/engine.h"
#include "storage/rocksdb/engine.h"
#include "tests/storage/engine_conformance.h"
#include "tests/storage/rocks_folder.h"
#include "tests/support/fault_file_system.h"

namespace modelstore::storage {
namespace {

namespace fs = std::filesystem;
using testing::FaultFileSystem;
using testing::FileKind;

class MemoryEngineFixture final : public EngineFixture {
 public:
  absl::StatusOr<Engine> Open() override { return OpenMemoryEngine(disk_); }
  void LosePower() override { disk_->LosePower(); }
  void SetFull(bool full) override { disk_->SetCapacity(full ? 1 : 0); }
  void Fail(Call call, bool for_good) override {
    disk_->SetFault({.at_call = 1, .for_good = for_good});
  }
  void StopFailing() override { disk_->SetFault({}); }
  void FlipBit(ChunkId chunk) override {
    ASSERT_TRUE(disk_->FlipBit(chunk.pack, chunk.sequence, 1234));
  }

 private:
  const std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
};

class RocksEngineFixture final : public EngineFixture {
 public:
  absl::StatusOr<Engine> Open() override {
    return OpenRocksEngine(
        {.path = folder_->path(), .ballast_bytes = 0, .file_system = disk_});
  }
  void LosePower() override {
    auto after = std::make_unique<RocksFolder>();
    ASSERT_TRUE(disk_->Materialize(after->path(), std::nullopt).ok());
    disk_ = std::make_shared<FaultFileSystem>(after->path());
    folder_ = std::move(after);
  }
  void SetFull(bool full) override { disk_->SetQuota(full ? disk_->used_bytes() : -1); }
  void Fail(Call call, bool for_good) override {
    FaultFileSystem::Fault fault;
    fault.for_good = for_good;
    switch (call) {
      case Call::kCatalogWrite:
        fault.ops = testing::kSync;
        fault.kind = FileKind::kWal;
        break;
      case Call::kPackAppend:
        fault.ops = testing::kWrite;
        fault.kind = FileKind::kPack;
        break;
      case Call::kPackFinish:
        fault.ops = testing::kSync;
        fault.kind = FileKind::kPack;
        break;
      case Call::kPackPublish:
      case Call::kPackDrop:
        fault.ops = testing::kWrite;
        fault.kind = FileKind::kManifest;
        break;
    }
    disk_->SetFault(fault);
  }
  void StopFailing() override { disk_->ClearFault(); }
  void FlipBit(ChunkId chunk) override {
    // The chunks of these tests fill a block each, in order.
    for (const std::string& path : folder_->Files("packs", ".sst")) {
      if (PackIn(path) != chunk.pack) continue;
      FlipBitAt(path, 100'050 * static_cast<int64_t>(chunk.sequence) + 50'000, 3);
      return;
    }
    FAIL() << "no file of pack " << chunk.pack;
  }

 private:
  std::unique_ptr<RocksFolder> folder_ = std::make_unique<RocksFolder>();
  std::shared_ptr<FaultFileSystem> disk_ =
      std::make_shared<FaultFileSystem>(folder_->path());
};

INSTANTIATE_TEST_SUITE_P(
    Engines, EngineConformance,
    ::testing::Values(
        EngineParam{"memory", [] { return std::make_unique<MemoryEngineFixture>(); }},
        EngineParam{"rocksdb", [] { return std::make_unique<RocksEngineFixture>(); }}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace modelstore::storage
