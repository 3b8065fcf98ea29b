// A store in memory with a clock of its own, and saves and loads in one call, for
// the tests of what lies above the seams.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/digest.h"
#include "proto/contract/mutex.h"
#include "storage/checkpoint_store.h"
#include "storage/memory/engine.h"

namespace modelstore::storage {

// A tensor as a worker has it: rows [first_row, first_row + rows) of `shape`.
struct TestTensor {
  std::string key;
  std::vector<int64_t> shape;
  std::string bytes;  // of its rows; uint8
  int64_t first_row = 0;
  std::optional<int64_t> rows;  // absent: all
  std::string section = "model";
};
using TestContent = std::vector<TestTensor>;

// One tensor of uint8 of one dimension.
TestTensor Vector(const std::string& key, const std::string& bytes);
// `tensors` tensors of `bytes` each, unlike those of other seeds.
TestContent RandomContent(uint64_t seed, int tensors, size_t bytes);

inline constexpr int64_t kTestChunk = 64 << 10;
ManifestPart PartOf(const TestContent& content, bool digests = true,
                    int64_t chunk_size = kTestChunk);
// The chunks of a content, in the order of its manifest.
std::vector<std::string> ChunksOf(const TestContent& content,
                                  int64_t chunk_size = kTestChunk);
Digest DigestOf(const std::string& bytes);
std::string DigestsOf(const std::vector<std::string>& chunks);

struct SaveOptions {
  std::string model = "m";
  std::string request_id;
  std::string request_digest = "request";
  std::optional<int64_t> expected_latest;
  bool no_base = false;
  std::optional<int64_t> epoch;
  std::optional<int64_t> base_version;  // of `model`; absent: the latest
};
SaveRequest RequestOf(const SaveOptions& options);

// Saves in one stream.
absl::StatusOr<records::CheckpointRecord> SaveOneShot(CheckpointStore& store,
                                                      const TestContent& content,
                                                      const SaveOptions& options = {});
// Saves by an upload of one contribution, sending what is missing.
absl::StatusOr<records::CheckpointRecord> SaveByUpload(CheckpointStore& store,
                                                       const TestContent& content,
                                                       const SaveOptions& options = {});
// Copies a version of `m` without a byte of its chunks.
absl::StatusOr<records::CheckpointRecord> Copy(CheckpointStore& store,
                                               VersionName version,
                                               const std::string& request_id = "",
                                               const std::string& into = "m");
// An upload by its name: each call opens it anew, as a request of its own does.
class NamedUpload {
 public:
  NamedUpload(Uploads& uploads, absl::string_view model, absl::string_view id)
      : upload_(uploads.Open(model, id)) {}

  absl::StatusOr<UploadState> State() const;
  absl::StatusOr<std::vector<uint32_t>> FindMissing(absl::string_view digests) const;
  absl::Status AddManifest(uint32_t contribution, const ManifestPart& part, bool begin,
                           bool complete) const;
  absl::StatusOr<std::unique_ptr<ChunkSink>> OpenSink() const;
  absl::StatusOr<records::CheckpointRecord> Commit(
      std::optional<int64_t> expected_latest_version, bool allow_empty = false) const;
  absl::Status Delete() const;

 private:
  const absl::StatusOr<std::shared_ptr<Upload>> upload_;
};
absl::Status PutAll(ChunkSink& sink, const std::vector<std::string>& chunks);

// Every tensor's bytes by `section:key`.
using Loaded = std::map<std::string, std::string>;
absl::StatusOr<Loaded> LoadAll(Read& read);
absl::StatusOr<Loaded> LoadAll(CheckpointStore& store, VersionName version,
                               const std::string& model = "m");
Loaded Expected(const TestContent& content);

class StoreFixture {
 public:
  // No grace, no reserve, small packs: what a test waits for happens at once.
  static StoreOptions SmallOptions();

  explicit StoreFixture(StoreOptions options = SmallOptions());

  // Closes the store, if one is open, and opens it on the same disk.
  absl::Status Reopen();
  void Close() { store_.reset(); }
  void Advance(absl::Duration time);
  // Sets the wall clock alone, as an administrator or NTP does.
  void StepWall(absl::Duration step);

  CheckpointStore& store() { return *store_; }
  MemoryDisk& disk() { return *disk_; }
  StoreOptions& options() { return options_; }
  // Ids of the packs on the disk.
  std::vector<uint64_t> Packs();
  // Bytes of everything on the disk after a collection.
  int64_t UsedAfterCollection();

 private:
  struct Clock {
    Mutex mutex;
    absl::Time now GUARDED_BY(mutex) = absl::FromUnixSeconds(1'700'000'000);
    absl::Duration wall_ahead GUARDED_BY(mutex);
  };

  const std::shared_ptr<MemoryDisk> disk_ = std::make_shared<MemoryDisk>();
  const std::shared_ptr<Clock> clock_ = std::make_shared<Clock>();
  StoreOptions options_;
  std::unique_ptr<CheckpointStore> store_;
};

#define ASSERT_OK(expression) ASSERT_EQ((expression), absl::OkStatus())
#define EXPECT_OK(expression) EXPECT_EQ((expression), absl::OkStatus())

}  // namespace modelstore::storage
