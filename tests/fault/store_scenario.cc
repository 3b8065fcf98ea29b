#include "tests/fault/store_scenario.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "rocksdb/file_system.h"
#include "storage/rocksdb/engine.h"
#include "storage/status_macros.h"
#include "tests/support/random_bytes.h"

namespace modelstore::storage {
namespace {

constexpr size_t kChunkBytes = 128 << 10;
// Beyond what gathers in memory: an ordinary pack.
constexpr int kLargeChunks = 10;

Digest DigestOf(const std::string& chunk) {
  return ComputeDigest(DigestAlgorithm::kXxh3_128, chunk);
}

SaveRequest RequestFor(const std::string& request_id) {
  SaveRequest request;
  request.model_id = kScenarioModel;
  request.create_model = true;
  request.request_id = request_id;
  request.request_digest = DigestOf(request_id).ToHex();
  return request;
}

absl::Status PutStream(Upload& upload, const std::vector<std::string>& chunks) {
  ASSIGN_OR_RETURN(auto sink, upload.OpenSink());
  for (const std::string& chunk : chunks) {
    const absl::string_view fragment = chunk;
    RETURN_IF_ERROR(sink->Put(DigestOf(chunk), {&fragment, 1}).status());
  }
  return sink->Close();
}

absl::Status SaveByUpload(CheckpointStore& store, const std::string& request_id,
                          const Content& content,
                          std::optional<int64_t> base = std::nullopt) {
  SaveRequest request = RequestFor(request_id);
  if (base) {
    request.base_model_id = kScenarioModel;
    request.base_version = base;
  }
  ASSIGN_OR_RETURN(const auto record, store.uploads().Create(request, 1, absl::Hours(1)));
  if (record.committed_version() != 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto upload,
                   store.uploads().Open(kScenarioModel, record.upload_id()));
  RETURN_IF_ERROR(PutStream(*upload, content.Chunks()));
  RETURN_IF_ERROR(upload->AddManifest(0, content.Manifest(), true, true));
  return upload->Commit(std::nullopt).status();
}

absl::Status SaveInOneStream(CheckpointStore& store, const std::string& request_id,
                             const Content& content) {
  ASSIGN_OR_RETURN(auto save, store.saves().StartOneShot(RequestFor(request_id)));
  RETURN_IF_ERROR(save->AddManifest(content.Manifest()));
  for (const std::string& chunk : content.Chunks()) {
    const absl::string_view fragment = chunk;
    RETURN_IF_ERROR(save->Put(DigestOf(chunk), {&fragment, 1}));
  }
  return save->Commit(std::nullopt).status();
}

absl::Status FinishUpload(CheckpointStore& store, const Known& known,
                          const Content& content) {
  ASSIGN_OR_RETURN(const auto upload,
                   store.uploads().Open(kScenarioModel, known.upload_id));
  ASSIGN_OR_RETURN(const UploadState state, upload->State());
  if (state.record.committed_version() != 0) return absl::OkStatus();
  RETURN_IF_ERROR(PutStream(*upload, content.Chunks()));
  RETURN_IF_ERROR(upload->AddManifest(0, content.Manifest(), true, true));
  return upload->Commit(std::nullopt).status();
}

absl::Status CopyFirst(CheckpointStore& store) {
  ASSIGN_OR_RETURN(const auto source, store.reads().Open(kScenarioModel, 1));
  ASSIGN_OR_RETURN(auto copy, store.saves().StartDerived(RequestFor("copy"), {source}));
  return copy->Commit(source->manifest(), std::nullopt).status();
}

// 0 deletes it.
absl::Status MoveProduction(CheckpointStore& store, int64_t version) {
  Aliases::Move move;
  move.alias = "production";
  move.version = version;
  return store.aliases().Set(kScenarioModel, move).status();
}

absl::Status Lease(CheckpointStore& store) {
  return store.leases().Acquire(kScenarioModel, 1, "worker", absl::Hours(1)).status();
}

// What holds versions lets go.
absl::Status Release(CheckpointStore& store) {
  const absl::Status alias = MoveProduction(store, 0);
  if (!alias.ok() && !absl::IsNotFound(alias)) return alias;
  const absl::Status lease = store.leases().Release(kScenarioModel, 1, "worker");
  return absl::IsNotFound(lease) ? absl::OkStatus() : lease;
}

absl::Status Sweep(CheckpointStore& store) {
  return store.maintenance()
      .CollectGarbage(false, [](int64_t, int64_t) { return true; })
      .status();
}

Content UploadContent() { return Content::Of(77, 2 * kLargeChunks, kChunkBytes); }

int CountFiles(const std::string& folder, const std::string& extension) {
  int count = 0;
  std::error_code error;
  for (const auto& e : std::filesystem::directory_iterator(folder, error)) {
    count += extension.empty() || e.path().extension() == extension ? 1 : 0;
  }
  return count;
}

absl::Status Broken(absl::string_view what) { return absl::DataLossError(what); }

absl::StatusOr<std::map<int64_t, records::CheckpointRecord>> ListVersions(
    CheckpointStore& store) {
  ASSIGN_OR_RETURN(const auto page,
                   store.checkpoints().List(kScenarioModel, false, "", 1000));
  std::map<int64_t, records::CheckpointRecord> versions;
  for (const auto& record : page.items) versions[record.version()] = record;
  return versions;
}

}  // namespace

Content Content::Of(uint64_t seed, int chunks, size_t chunk_bytes) {
  Content content;
  for (int i = 0; i < chunks; ++i) {
    content.tensors[i % 2 == 0 ? "even" : "odd"].push_back(
        support::RandomBytes(seed * 1'000 + static_cast<uint64_t>(i), chunk_bytes));
  }
  return content;
}

ManifestPart Content::Manifest() const {
  ManifestPart part;
  for (const auto& [key, chunks] : tensors) {
    auto& tensor = *part.add_tensors();
    tensor.set_section("model");
    tensor.set_key(key);
    tensor.set_dtype(2);
    auto& piece = *tensor.add_pieces();
    int64_t bytes = 0;
    for (const std::string& chunk : chunks) {
      bytes += static_cast<int64_t>(chunk.size());
      const Digest digest = DigestOf(chunk);
      piece.mutable_digests()->append(digest.bytes().data(), digest.bytes().size());
    }
    piece.set_chunk_size_bytes(static_cast<int64_t>(chunks[0].size()));
    piece.add_offset(0);
    piece.add_size(bytes);
    tensor.add_shape(bytes);
  }
  return part;
}

std::vector<std::string> Content::Chunks() const {
  std::vector<std::string> all;
  for (const auto& [key, chunks] : tensors) {
    all.insert(all.end(), chunks.begin(), chunks.end());
  }
  return all;
}

std::vector<Operation> Operations() {
  const Content large = Content::Of(10, kLargeChunks, kChunkBytes);
  const Content small = Content::Of(11, 4, 4 << 10);
  std::vector<Operation> operations;
  operations.push_back(
      {.name = "Save",
       .run = [large](CheckpointStore& store,
                      const Known&) { return SaveByUpload(store, "save", large); },
       .adds = large});
  operations.push_back(
      {.name = "SmallSave",
       .run = [small](CheckpointStore& store,
                      const Known&) { return SaveInOneStream(store, "small", small); },
       .adds = small});
  operations.push_back(
      {.name = "LargeOneStreamSave",
       .run = [large](CheckpointStore& store,
                      const Known&) { return SaveInOneStream(store, "stream", large); },
       .adds = large});
  operations.push_back({.name = "SealAndCommitOfTheOpenUpload",
                        .run =
                            [](CheckpointStore& store, const Known& known) {
                              return FinishUpload(store, known, UploadContent());
                            },
                        .adds = UploadContent(),
                        .ends_upload = true});
  operations.push_back(
      {.name = "Delete",
       .run =
           [](CheckpointStore& store, const Known&) {
             return store.checkpoints().Delete(kScenarioModel, 1, {}).status();
           },
       .deletes = {1},
       .repeatable = false});
  operations.push_back(
      {.name = "DeleteAndSweep",
       .run = [](CheckpointStore& store, const Known&) -> absl::Status {
         for (int64_t version : {1, 2}) {
           const absl::Status s =
               store.checkpoints().Delete(kScenarioModel, version, {}).status();
           if (!s.ok() && !absl::IsNotFound(s)) return s;
         }
         return Sweep(store);
       },
       .deletes = {1, 2}});
  operations.push_back(
      {.name = "MergeOfSmallPacks",
       .run = [large](CheckpointStore& store, const Known&) -> absl::Status {
         RETURN_IF_ERROR(SaveByUpload(store, "merged", large));
         return Sweep(store);
       },
       .adds = large});
  operations.push_back(
      {.name = "EndOfUploadAndSweep",
       .run = [](CheckpointStore& store, const Known& known) -> absl::Status {
         const auto upload = store.uploads().Open(kScenarioModel, known.upload_id);
         const absl::Status s = upload.ok() ? (*upload)->Delete() : upload.status();
         if (!s.ok() && !absl::IsNotFound(s)) return s;
         return Sweep(store);
       },
       .ends_upload = true});
  operations.push_back(
      {.name = "Copy",
       .run = [](CheckpointStore& store, const Known&) { return CopyFirst(store); },
       .adds = Content::Of(1, kLargeChunks, kChunkBytes)});
  operations.push_back({.name = "MoveAlias",
                        .run = [](CheckpointStore& store,
                                  const Known&) { return MoveProduction(store, 2); },
                        .moves_to = 2});
  operations.push_back(
      {.name = "AcquireLease",
       .run = [](CheckpointStore& store, const Known&) { return Lease(store); },
       .leases = true});
  return operations;
}

Operation OperationNamed(const std::string& name) {
  for (Operation& operation : Operations()) {
    if (operation.name == name) return operation;
  }
  return {};
}

StoreOptions SmallStoreOptions() {
  StoreOptions options;
  options.reserve_bytes = 0;
  options.grace = absl::ZeroDuration();
  options.start_grace = absl::ZeroDuration();
  // The packs of two versions are merged by every sweep.
  options.merge_packs = 2;
  return options;
}

absl::StatusOr<std::unique_ptr<CheckpointStore>> OpenStore(
    const std::string& folder, std::shared_ptr<rocksdb::FileSystem> file_system,
    int64_t ballast_bytes, bool accept_data_loss, Listener* listener) {
  RocksOptions options;
  options.path = folder;
  options.ballast_bytes = ballast_bytes;
  options.file_system = std::move(file_system);
  options.accept_data_loss = accept_data_loss;
  options.listener = listener;
  ASSIGN_OR_RETURN(Engine engine, OpenRocksEngine(options));
  return CheckpointStore::Open(SmallStoreOptions(), std::move(engine));
}

Scenario::Scenario(std::string folder) : folder_(std::move(folder)) {
  std::filesystem::remove_all(folder_);
  auto store = OpenStore(folder_);
  const auto must = [](const absl::Status& s) {
    if (!s.ok()) {
      std::fprintf(stderr, "the scenario itself failed: %s\n", s.ToString().c_str());
      std::abort();
    }
  };
  must(store.status());
  known_.versions[1] = Content::Of(1, kLargeChunks, kChunkBytes);
  known_.versions[2] = Content::Of(2, 4, 4 << 10);
  // Shares half of its chunks with version 1.
  known_.versions[3] = Content::Of(3, kLargeChunks, kChunkBytes);
  known_.versions[3].tensors["even"] = known_.versions[1].tensors["even"];
  must(SaveByUpload(**store, "v1", known_.versions[1]));
  must(SaveInOneStream(**store, "v2", known_.versions[2]));
  must(SaveByUpload(**store, "v3", known_.versions[3], 1));
  must(MoveProduction(**store, 3));
  auto record = (*store)->uploads().Create(RequestFor("open"), 1, absl::Hours(1));
  must(record.status());
  known_.upload_id = record->upload_id();
  known_.sealed = UploadContent().tensors["odd"];
  auto upload = (*store)->uploads().Open(kScenarioModel, known_.upload_id);
  must(upload.status());
  must(PutStream(**upload, known_.sealed));
}

absl::Status VerifyVersion(CheckpointStore& store, int64_t version,
                           const Content& content) {
  ASSIGN_OR_RETURN(const auto read, store.reads().Open(kScenarioModel, version));
  const records::ManifestPage& manifest = read->manifest();
  if (manifest.tensors_size() != static_cast<int>(content.tensors.size())) {
    return Broken(
        absl::StrCat("version ", version, " has ", manifest.tensors_size(), " tensors"));
  }
  for (int t = 0; t < manifest.tensors_size(); ++t) {
    const auto it = content.tensors.find(manifest.tensors(t).key());
    if (it == content.tensors.end()) return Broken("a tensor that nobody saved");
    std::string bytes, expected;
    for (const std::string& chunk : it->second) expected += chunk;
    for (int p = 0; p < manifest.tensors(t).pieces_size(); ++p) {
      const int64_t chunks = manifest.tensors(t).pieces(p).digests().size() / 16;
      for (int64_t c = 0; c < chunks; ++c) {
        ASSIGN_OR_RETURN(const PinnedBytes chunk, read->ReadChunk(t, p, c));
        bytes.append(chunk.view().data(), chunk.view().size());
      }
    }
    if (bytes != expected) {
      return Broken(
          absl::StrCat("version ", version, ", tensor ", it->first, " differs"));
    }
  }
  return absl::OkStatus();
}

absl::Status Scenario::CheckUpload(CheckpointStore& store, const Operation& operation,
                                   bool acknowledged) const {
  std::string digests;
  for (const std::string& chunk : known_.sealed) {
    digests.append(DigestOf(chunk).bytes().data(), 16);
  }
  const auto upload = store.uploads().Open(kScenarioModel, known_.upload_id);
  const auto state =
      upload.ok() ? (*upload)->State() : absl::StatusOr<UploadState>(upload.status());
  if (operation.ends_upload) {
    if (absl::IsNotFound(state.status())) return absl::OkStatus();
    if (acknowledged && state.ok() && state->record.committed_version() == 0) {
      return Broken("the upload was ended and is open again");
    }
  }
  RETURN_IF_ERROR(state.status());
  if (state->record.committed_version() != 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<uint32_t> missing, (*upload)->FindMissing(digests));
  if (!missing.empty()) {
    return Broken(
        absl::StrCat("the open upload lost ", missing.size(), " sealed chunks"));
  }
  return absl::OkStatus();
}

// What was told to hold a version does, and the history and the log tell each change
// once.
absl::Status Scenario::CheckHolds(CheckpointStore& store, const Operation& operation,
                                  bool acknowledged) const {
  ASSIGN_OR_RETURN(const auto model, store.models().Get(kScenarioModel));
  const int64_t production = model.aliases().at("production");
  const bool moved = production != 3;
  if (moved && production != operation.moves_to) return Broken("the alias is elsewhere");
  if (!moved && operation.moves_to && acknowledged) return Broken("the move is lost");
  ASSIGN_OR_RETURN(const auto moves,
                   store.aliases().ListMoves(kScenarioModel, "production", "", 10));
  if (moves.items.size() != (moved ? 2u : 1u) ||
      moves.items[0].to_version() != production) {
    return Broken("the history tells another story");
  }
  ASSIGN_OR_RETURN(const auto events,
                   store.models().Events(model, model.generation() - 1, 10));
  if (events.size() != 1) return Broken("the log does not tell the last change");

  ASSIGN_OR_RETURN(const auto leases, store.leases().List(kScenarioModel, {}, "", 10));
  const bool leased = !leases.items.empty();
  if (leased && !operation.leases) return Broken("a lease that nobody took");
  if (!leased && operation.leases && acknowledged) return Broken("the lease is lost");
  const std::pair<int64_t, bool> held[] = {{production, true}, {1, leased}};
  for (const auto& [version, expected] : held) {
    const absl::Status deletion =
        store.checkpoints()
            .Delete(kScenarioModel, version, {.validate_only = true})
            .status();
    if (absl::IsNotFound(deletion) && !expected) continue;
    if (absl::IsFailedPrecondition(deletion) != expected) {
      return Broken(
          absl::StrCat("version ", version, " is held wrongly: ", deletion.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status Scenario::CheckContent(CheckpointStore& store, const Operation& operation,
                                    bool acknowledged) const {
  ASSIGN_OR_RETURN(auto found, ListVersions(store));
  for (const auto& [version, content] : known_.versions) {
    const bool deleted = operation.deletes.count(version) != 0;
    if (found.count(version) == 0) {
      if (!deleted) return Broken(absl::StrCat("version ", version, " is lost"));
    } else {
      if (deleted && acknowledged) {
        return Broken(absl::StrCat("version ", version, " was deleted, and is back"));
      }
      RETURN_IF_ERROR(VerifyVersion(store, version, content));
      found.erase(version);
    }
  }
  if (acknowledged && operation.adds && found.size() != 1) {
    return Broken("the acknowledged version is lost");
  }
  for (const auto& [version, record] : found) {
    if (!operation.adds || version != 4) {
      return Broken(absl::StrCat("version ", version, " was never saved"));
    }
    RETURN_IF_ERROR(VerifyVersion(store, version, *operation.adds));
  }
  RETURN_IF_ERROR(CheckHolds(store, operation, acknowledged));
  return CheckUpload(store, operation, acknowledged);
}

absl::Status Scenario::CheckSpace(CheckpointStore& store,
                                  const std::string& folder) const {
  RETURN_IF_ERROR(Sweep(store));
  ASSIGN_OR_RETURN(const StoreStats stats, store.maintenance().Stats());
  // Packs of small saves have no file of their own.
  const int files = CountFiles(folder + "/packs", ".sst");
  if (files > stats.pack_count) {
    return Broken(absl::StrCat(files, " pack files for ", stats.pack_count, " packs"));
  }
  if (CountFiles(folder + "/incoming", "") != 0) return Broken("a half-made pack stayed");
  // All goes, and nothing is left.
  RETURN_IF_ERROR(Release(store));
  ASSIGN_OR_RETURN(const auto versions, ListVersions(store));
  for (const auto& [version, record] : versions) {
    RETURN_IF_ERROR(store.checkpoints().Delete(kScenarioModel, version, {}).status());
  }
  ASSIGN_OR_RETURN(const auto uploads, store.uploads().List("", "", 100));
  for (const UploadState& state : uploads.items) {
    ASSIGN_OR_RETURN(const auto upload,
                     store.uploads().Open(kScenarioModel, state.record.upload_id()));
    RETURN_IF_ERROR(upload->Delete());
  }
  RETURN_IF_ERROR(Sweep(store));
  ASSIGN_OR_RETURN(const StoreStats empty, store.maintenance().Stats());
  if (empty.pack_count != 0 || empty.pack_bytes != 0 || empty.waiting_bytes != 0) {
    return Broken(absl::StrCat("an empty store holds ", empty.pack_count, " packs, ",
                               empty.pack_bytes, " bytes, ", empty.waiting_bytes,
                               " waiting"));
  }
  if (CountFiles(folder + "/packs", ".sst") != 0) return Broken("a pack file stayed");
  // Numbers are never given again.
  RETURN_IF_ERROR(SaveInOneStream(store, "later", Content::Of(99, 2, 1'000)));
  ASSIGN_OR_RETURN(const auto later, ListVersions(store));
  const int64_t highest =
      versions.empty() ? 3 : std::max<int64_t>(3, versions.rbegin()->first);
  if (later.size() != 1 || later.begin()->first <= highest) {
    return Broken("a version's number was given twice");
  }
  RETURN_IF_ERROR(
      store.checkpoints().Delete(kScenarioModel, later.begin()->first, {}).status());
  return Sweep(store);
}

absl::Status Scenario::CheckEmptyCatalog(const std::string& folder) const {
  RocksOptions options;
  options.path = folder;
  options.ballast_bytes = 0;
  ASSIGN_OR_RETURN(Engine engine, OpenRocksEngine(options));
  for (Space space : {Space::kManifests, Space::kChunks}) {
    int left = 0;
    RETURN_IF_ERROR(engine.catalog->Scan(space, KeyRange{},
                                         [&left](absl::string_view, absl::string_view) {
                                           ++left;
                                           return true;
                                         }));
    if (left != 0) {
      return Broken(
          absl::StrCat("an empty store's catalog keeps ", left,
                       space == Space::kChunks ? " chunks" : " manifest pages"));
    }
  }
  return absl::OkStatus();
}

absl::Status Scenario::Check(const std::string& folder, const Operation& operation,
                             bool acknowledged) const {
  {
    ASSIGN_OR_RETURN(auto store, OpenStore(folder));
    RETURN_IF_ERROR(CheckContent(*store, operation, acknowledged));
    RETURN_IF_ERROR(CheckSpace(*store, folder));
  }
  return CheckEmptyCatalog(folder);
}

}  // namespace modelstore::storage
