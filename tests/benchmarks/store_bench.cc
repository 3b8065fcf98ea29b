// How storage bears many packs and many versions: commits beside 1,000 and 10,000
// packs, pages of a list of 100,000 checkpoints; or what deleting most of them gives
// back. One JSON object a line.
//
//   store_bench --folder DIR [--quick] [--reclaim]
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/contract/digest.h"
#include "proto/contract/dtype.h"
#include "storage/checkpoint_store.h"
#include "storage/rocksdb/engine.h"
#include "tests/benchmarks/bench.h"
#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/report.h"

namespace modelstore::bench {
namespace {

using storage::CheckpointStore;
using storage::ChunkStore;
using storage::ManifestPart;
using storage::SaveRequest;
namespace records = storage::records;

struct Store {
  std::unique_ptr<CheckpointStore> store;
  // Inside of `store`: packs that no checkpoint names are put in below it.
  ChunkStore* packs = nullptr;
};

Store OpenStore(const std::string& folder, storage::StoreOptions store_options = {}) {
  std::filesystem::remove_all(folder);
  storage::RocksOptions options;
  options.path = folder;
  storage::Engine engine = OrDie(storage::OpenRocksEngine(options));
  Store opened;
  opened.packs = engine.chunks.get();
  opened.store = OrDie(CheckpointStore::Open(store_options, std::move(engine)));
  return opened;
}

std::string Bytes(size_t size, uint64_t seed) {
  std::string bytes(size, '\0');
  uint64_t x = seed * 2685821657736338717u + 88172645463325252u;
  for (char& c : bytes) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x);
  }
  return bytes;
}

// Adds a tensor of uint8 that is one chunk.
void AddTensor(const std::string& key, const std::string& bytes, ManifestPart& part) {
  records::TensorRecord* tensor = part.add_tensors();
  tensor->set_section("model");
  tensor->set_key(key);
  tensor->set_dtype(static_cast<uint32_t>(DType::kUint8));
  tensor->add_shape(static_cast<int64_t>(bytes.size()));
  records::PieceRecord* piece = tensor->add_pieces();
  piece->set_chunk_size_bytes(static_cast<int64_t>(bytes.size()));
  piece->set_digests(
      std::string(ComputeDigest(DigestAlgorithm::kXxh3_128, bytes).bytes()));
}

ManifestPart PartOf(const std::string& bytes) {
  ManifestPart part;
  AddTensor("t", bytes, part);
  return part;
}

SaveRequest RequestOf(const std::string& model, int number) {
  SaveRequest request;
  request.model_id = model;
  request.create_model = true;
  request.no_base = true;
  request.request_id = absl::StrCat("save-", number);
  request.request_digest = request.request_id;
  return request;
}

// What one upload of 2 MiB, which makes a pack of its own, waits for.
struct Commits {
  std::vector<double> seal_ms, commit_ms, both_ms;
};

Commits MeasureCommits(CheckpointStore& store, int count) {
  Commits result;
  for (int i = 0; i < count; ++i) {
    const std::string bytes = Bytes(2 << 20, static_cast<uint64_t>(i) + 1);
    const auto record = OrDie(store.uploads().Create(RequestOf("commits", i), 1, {}));
    const auto upload = OrDie(store.uploads().Open("commits", record.upload_id()));
    auto sink = OrDie(upload->OpenSink());
    OrDie(sink->Put(ComputeDigest(DigestAlgorithm::kXxh3_128, bytes), {bytes}));
    OrDie(upload->AddManifest(0, PartOf(bytes), true, true));
    Stopwatch seal;
    OrDie(sink->Close());
    const double seal_ms = seal.seconds() * 1e3;
    Stopwatch commit;
    OrDie(upload->Commit({}));
    const double commit_ms = commit.seconds() * 1e3;
    result.seal_ms.push_back(seal_ms);
    result.commit_ms.push_back(commit_ms);
    result.both_ms.push_back(seal_ms + commit_ms);
  }
  OrDie(store.models().Delete("commits", true, {}));
  return result;
}

void GrowTo(ChunkStore& packs, int count, int* have) {
  const std::string chunk = Bytes(1024, 7);
  for (; *have < count; ++*have) {
    // Far from the ids that the store gives.
    auto writer =
        OrDie(packs.NewPack((uint64_t{1} << 40) + static_cast<uint64_t>(*have)));
    OrDie(writer->Append(chunk));
    OrDie(writer->Finish());
    OrDie(packs.Publish(std::move(writer)));
  }
}

void CommitsBesidePacks(const std::string& folder, bool quick, Report& report) {
  Store store = OpenStore(folder);
  int have = 0;
  for (const int packs : {1000, 10000}) {
    GrowTo(*store.packs, quick ? packs / 50 : packs, &have);
    const Commits commits = MeasureCommits(*store.store, quick ? 5 : 31);
    report.Add({absl::StrCat("commit_ms_", packs, "_packs"),
                Median(commits.both_ms),
                "ms",
                {{"seal_ms", Median(commits.seal_ms)},
                 {"commit_ms", Median(commits.commit_ms)},
                 {"packs", static_cast<double>(have)}}});
  }
}

void PagesOfCheckpoints(const std::string& folder, bool quick, Report& report) {
  Store opened = OpenStore(folder);
  CheckpointStore& store = *opened.store;
  const int count = quick ? 1000 : 100'000;
  for (int i = 0; i < count; ++i) {
    const std::string bytes = Bytes(16, static_cast<uint64_t>(i) + 1);
    auto save = OrDie(store.saves().StartOneShot(RequestOf("m", i)));
    OrDie(save->AddManifest(PartOf(bytes)));
    OrDie(save->Put(ComputeDigest(DigestAlgorithm::kXxh3_128, bytes), {bytes}));
    OrDie(save->Commit({}));
  }
  // Positions are the store's own: walk to the last page.
  std::string last, next;
  int seen = 0;
  do {
    last = next;
    auto page = OrDie(store.checkpoints().List("m", false, last, 50));
    seen += static_cast<int>(page.items.size());
    next = page.next;
  } while (!next.empty());
  if (seen != count) OrDie(absl::DataLossError(absl::StrCat(seen, " versions listed")));
  const auto time = [&](const std::string& after) {
    std::vector<double> ms;
    for (int i = 0; i < 21; ++i) {
      Stopwatch watch;
      OrDie(store.checkpoints().List("m", false, after, 50));
      ms.push_back(watch.seconds() * 1e3);
    }
    return Median(ms);
  };
  const double first_ms = time(""), last_ms = time(last);
  report.Add({"list_page_ms_100k",
              last_ms,
              "ms",
              {{"first_page_ms", first_ms},
               {"last_page_ms", last_ms},
               {"checkpoints", static_cast<double>(count)}}});
}

// What the files of the store take from the disk, but for the ballast.
int64_t BytesOnDisk(const std::string& folder) {
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    struct stat info {};
    if (!entry.is_regular_file() || entry.path().filename() == "BALLAST" ||
        stat(entry.path().c_str(), &info) != 0) {
      continue;
    }
    bytes += int64_t{512} * info.st_blocks;
  }
  return bytes;
}

// 100 saves of eight tensors, of which the k-th changes in each k-th save only, so
// that packs die in parts; then 90 of them are deleted.
void SpaceAfterDeletions(const std::string& folder, bool quick, Report& report) {
  storage::StoreOptions options;
  options.grace = absl::ZeroDuration();
  Store opened = OpenStore(folder, options);
  CheckpointStore& store = *opened.store;
  constexpr int kSaves = 100, kTensors = 8;
  const size_t bytes = quick ? size_t{256} << 10 : size_t{2} << 20;
  std::vector<std::string> tensors(kTensors);
  for (int i = 0; i < kSaves; ++i) {
    ManifestPart part;
    for (int t = 0; t < kTensors; ++t) {
      if (i % (t + 1) == 0)
        tensors[t] = Bytes(bytes, static_cast<uint64_t>(i * 10 + t + 1));
      AddTensor(absl::StrCat("t", t), tensors[t], part);
    }
    SaveRequest request = RequestOf("m", i);
    request.no_base = false;
    const auto record = OrDie(store.uploads().Create(request, 1, {}));
    const auto upload = OrDie(store.uploads().Open("m", record.upload_id()));
    auto sink = OrDie(upload->OpenSink());
    for (const std::string& tensor : tensors) {
      OrDie(sink->Put(ComputeDigest(DigestAlgorithm::kXxh3_128, tensor), {tensor}));
    }
    OrDie(sink->Close());
    OrDie(upload->AddManifest(0, part, true, true));
    OrDie(upload->Commit({}));
  }
  const int64_t before = BytesOnDisk(folder);
  int64_t freed = 0;
  for (int64_t version = 1; version <= kSaves; ++version) {
    if (version % 10 == 5) continue;
    freed += OrDie(store.checkpoints().Delete("m", version, {})).freed_bytes;
  }
  Stopwatch watch;
  const auto collected = OrDie(store.maintenance().CollectGarbage(false, nullptr));
  const double collect_s = watch.seconds();
  freed += collected.freed_bytes;
  const int64_t after = BytesOnDisk(folder);
  const auto stats = OrDie(store.maintenance().Stats());
  report.Add({"reclaim_ratio",
              static_cast<double>(before - after) / static_cast<double>(freed),
              "ratio",
              {{"before_bytes", static_cast<double>(before)},
               {"after_bytes", static_cast<double>(after)},
               {"freed_bytes", static_cast<double>(freed)},
               {"reclaimable_bytes", static_cast<double>(stats.reclaimable_bytes)},
               {"packs", static_cast<double>(stats.pack_count)},
               {"collect_s", collect_s}}});
}

int Main(int argc, char** argv) {
  std::string folder;
  bool quick = false;
  bool reclaim = false;
  CLI::App app{"Measures storage with many packs and many versions"};
  app.add_option("--folder", folder, "working folder; emptied")->required();
  app.add_flag("--quick", quick, "a fiftieth of the packs, a hundredth of the versions");
  app.add_flag("--reclaim", reclaim, "what deletions give back, and nothing else");
  CLI11_PARSE(app, argc, argv);
  // Each pack holds a descriptor.
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  Report report(nullptr);
  if (reclaim) {
    SpaceAfterDeletions(folder, quick, report);
  } else {
    PagesOfCheckpoints(folder, quick, report);
    CommitsBesidePacks(folder, quick, report);
  }
  std::filesystem::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace modelstore::bench

int main(int argc, char** argv) { return modelstore::bench::Main(argc, argv); }
