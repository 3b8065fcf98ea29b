#include "tests/storage/store_fixture.h"

#include <algorithm>
#include <utility>

#include "storage/status_macros.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

constexpr uint32_t kUint8 = 2;

}  // namespace

TestTensor Vector(const std::string& key, const std::string& bytes) {
  return {key, {static_cast<int64_t>(bytes.size())}, bytes};
}

TestContent RandomContent(uint64_t seed, int tensors, size_t bytes) {
  TestContent content;
  for (int t = 0; t < tensors; ++t) {
    content.push_back(Vector("t" + std::to_string(t),
                             support::RandomBytes(seed * 1'000'003 + t, bytes)));
  }
  return content;
}

Digest DigestOf(const std::string& bytes) {
  return ComputeDigest(DigestAlgorithm::kXxh3_128, bytes);
}

std::string DigestsOf(const std::vector<std::string>& chunks) {
  std::string digests;
  for (const std::string& chunk : chunks) {
    const Digest digest = DigestOf(chunk);
    digests.append(digest.bytes().data(), digest.bytes().size());
  }
  return digests;
}

std::vector<std::string> ChunksOf(const TestContent& content, int64_t chunk_size) {
  std::vector<std::string> chunks;
  for (const TestTensor& tensor : content) {
    for (size_t at = 0; at < tensor.bytes.size(); at += chunk_size) {
      chunks.push_back(tensor.bytes.substr(at, chunk_size));
    }
  }
  return chunks;
}

ManifestPart PartOf(const TestContent& content, bool digests, int64_t chunk_size) {
  ManifestPart part;
  for (const TestTensor& tensor : content) {
    auto& record = *part.add_tensors();
    record.set_section(tensor.section);
    record.set_key(tensor.key);
    record.set_dtype(kUint8);
    record.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    auto& piece = *record.add_pieces();
    if (tensor.rows.has_value()) {
      piece.mutable_offset()->Resize(record.shape_size(), 0);
      piece.set_offset(0, tensor.first_row);
      *piece.mutable_size() = record.shape();
      piece.set_size(0, *tensor.rows);
    }
    piece.set_chunk_size_bytes(chunk_size);
    if (digests) piece.set_digests(DigestsOf(ChunksOf({tensor}, chunk_size)));
  }
  return part;
}

SaveRequest RequestOf(const SaveOptions& options) {
  SaveRequest request;
  request.model_id = options.model;
  request.create_model = true;
  request.request_id = options.request_id;
  request.request_digest = options.request_digest;
  request.no_base = options.no_base;
  if (options.base_version.has_value()) request.base_version = *options.base_version;
  if (options.epoch.has_value()) request.metadata.set_epoch(*options.epoch);
  return request;
}

absl::StatusOr<records::CheckpointRecord> SaveOneShot(CheckpointStore& store,
                                                      const TestContent& content,
                                                      const SaveOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<OneShotSave> save,
                   store.saves().StartOneShot(RequestOf(options)));
  RETURN_IF_ERROR(save->AddManifest(PartOf(content)));
  for (const std::string& chunk : ChunksOf(content)) {
    RETURN_IF_ERROR(save->Put(DigestOf(chunk), {chunk}));
  }
  return save->Commit(options.expected_latest);
}

absl::StatusOr<records::CheckpointRecord> Copy(CheckpointStore& store,
                                               VersionName version,
                                               const std::string& request_id,
                                               const std::string& into) {
  auto read = store.reads().Open("m", version);
  if (!read.ok()) return read.status();
  auto save = store.saves().StartDerived(
      RequestOf({.model = into, .request_id = request_id}), {*read});
  if (!save.ok()) return save.status();
  return (*save)->Commit((*read)->manifest(), {});
}

absl::Status PutAll(ChunkSink& sink, const std::vector<std::string>& chunks) {
  for (const std::string& chunk : chunks) {
    RETURN_IF_ERROR(sink.Put(DigestOf(chunk), {chunk}).status());
  }
  return sink.Close();
}

absl::StatusOr<records::CheckpointRecord> SaveByUpload(CheckpointStore& store,
                                                       const TestContent& content,
                                                       const SaveOptions& options) {
  ASSIGN_OR_RETURN(const records::UploadRecord record,
                   store.uploads().Create(RequestOf(options), 1, absl::ZeroDuration()));
  ASSIGN_OR_RETURN(const std::shared_ptr<Upload> upload,
                   store.uploads().Open(options.model, record.upload_id()));
  if (record.committed_version() != 0) return upload->Commit({});
  const std::vector<std::string> chunks = ChunksOf(content);
  ASSIGN_OR_RETURN(const std::vector<uint32_t> missing,
                   upload->FindMissing(DigestsOf(chunks)));
  std::vector<std::string> wanted;
  for (uint32_t i : missing) wanted.push_back(chunks[i]);
  ASSIGN_OR_RETURN(std::unique_ptr<ChunkSink> sink, upload->OpenSink());
  RETURN_IF_ERROR(PutAll(*sink, wanted));
  RETURN_IF_ERROR(upload->AddManifest(0, PartOf(content), true, true));
  return upload->Commit(options.expected_latest);
}

absl::StatusOr<UploadState> NamedUpload::State() const {
  if (!upload_.ok()) return upload_.status();
  return (*upload_)->State();
}

absl::StatusOr<std::vector<uint32_t>> NamedUpload::FindMissing(
    absl::string_view digests) const {
  if (!upload_.ok()) return upload_.status();
  return (*upload_)->FindMissing(digests);
}

absl::Status NamedUpload::AddManifest(uint32_t contribution, const ManifestPart& part,
                                      bool begin, bool complete) const {
  if (!upload_.ok()) return upload_.status();
  return (*upload_)->AddManifest(contribution, part, begin, complete);
}

absl::StatusOr<std::unique_ptr<ChunkSink>> NamedUpload::OpenSink() const {
  if (!upload_.ok()) return upload_.status();
  return (*upload_)->OpenSink();
}

absl::StatusOr<records::CheckpointRecord> NamedUpload::Commit(
    std::optional<int64_t> expected_latest_version, bool allow_empty) const {
  if (!upload_.ok()) return upload_.status();
  return (*upload_)->Commit(expected_latest_version, allow_empty);
}

absl::Status NamedUpload::Delete() const {
  if (!upload_.ok()) return upload_.status();
  return (*upload_)->Delete();
}

absl::StatusOr<Loaded> LoadAll(Read& read) {
  Loaded loaded;
  const records::ManifestPage& manifest = read.manifest();
  for (int t = 0; t < manifest.tensors_size(); ++t) {
    const auto& tensor = manifest.tensors(t);
    std::string& bytes = loaded[tensor.section() + ":" + tensor.key()];
    for (int p = 0; p < tensor.pieces_size(); ++p) {
      for (int64_t c = 0; c < tensor.pieces(p).packs_size(); ++c) {
        ASSIGN_OR_RETURN(const PinnedBytes chunk, read.ReadChunk(t, p, c));
        bytes.append(chunk.view().data(), chunk.view().size());
      }
    }
  }
  return loaded;
}

absl::StatusOr<Loaded> LoadAll(CheckpointStore& store, VersionName version,
                               const std::string& model) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Read> read, store.reads().Open(model, version));
  return LoadAll(*read);
}

Loaded Expected(const TestContent& content) {
  Loaded loaded;
  for (const TestTensor& tensor : content) {
    loaded[tensor.section + ":" + tensor.key] += tensor.bytes;
  }
  return loaded;
}

StoreOptions StoreFixture::SmallOptions() {
  StoreOptions options;
  options.pack_bytes = int64_t{1} << 20;
  options.second_pack_bytes = int64_t{256} << 10;
  options.reserve_bytes = 0;
  options.grace = absl::ZeroDuration();
  options.start_grace = absl::ZeroDuration();
  return options;
}

StoreFixture::StoreFixture(StoreOptions options) : options_(std::move(options)) {
  options_.now = [clock = clock_] {
    MutexLock lock(clock->mutex);
    return clock->now + clock->wall_ahead;
  };
  options_.steady_now = [clock = clock_] {
    MutexLock lock(clock->mutex);
    return clock->now - absl::UnixEpoch();
  };
  EXPECT_OK(Reopen());
}

absl::Status StoreFixture::Reopen() {
  store_.reset();
  ASSIGN_OR_RETURN(store_, CheckpointStore::Open(options_, OpenMemoryEngine(disk_)));
  return absl::OkStatus();
}

void StoreFixture::Advance(absl::Duration time) {
  MutexLock lock(clock_->mutex);
  clock_->now += time;
}

void StoreFixture::StepWall(absl::Duration step) {
  MutexLock lock(clock_->mutex);
  clock_->wall_ahead += step;
}

std::vector<uint64_t> StoreFixture::Packs() {
  Engine engine = OpenMemoryEngine(disk_);
  EXPECT_OK(engine.chunks->Reopen({}));
  std::vector<uint64_t> ids;
  const auto packs = engine.chunks->ListPacks();
  EXPECT_OK(packs.status());
  for (const PackInfo& pack : *packs) ids.push_back(pack.pack);
  return ids;
}

int64_t StoreFixture::UsedAfterCollection() {
  const auto result = store_->maintenance().CollectGarbage(false, nullptr);
  EXPECT_OK(result.status());
  return disk_->used_bytes();
}

}  // namespace modelstore::storage
