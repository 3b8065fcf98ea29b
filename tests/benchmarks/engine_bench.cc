// What the embedded engine itself can do: writes packs of 1 and 4 MiB chunks and
// reads them warm, on one and two threads. One JSON object a line.
//
//   engine_bench FOLDER [MEBIBYTES]
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "storage/rocksdb/chunk_store.h"

namespace {

using modelstore::storage::ChunkId;
using modelstore::storage::RocksOptions;
using modelstore::storage::rocks::Folder;
using modelstore::storage::rocks::RocksChunkStore;

double Seconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// The first touch of memory that the host took back is slow: touch it before.
void TouchMemory(size_t bytes) {
  char* p = static_cast<char*>(std::malloc(bytes));
  for (size_t i = 0; i < bytes; i += 4096) p[i] = 1;
  std::free(p);
}

class Section {
 public:
  Section(std::string name, double gigabytes)
      : name_(std::move(name)),
        gigabytes_(gigabytes),
        begin_(Seconds()),
        cpu_(CpuSeconds()) {}
  ~Section() {
    const double seconds = Seconds() - begin_;
    const double cpu = CpuSeconds() - cpu_;
    std::printf(
        "{\"name\": \"%s\", \"value\": %.2f, \"unit\": \"GB/s\", "
        "\"cpu_s_per_gb\": %.3f}\n",
        name_.c_str(), gigabytes_ / seconds, cpu / gigabytes_);
    std::fflush(stdout);
  }

 private:
  const std::string name_;
  const double gigabytes_;
  const double begin_;
  const double cpu_;
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::abort();
}

constexpr int64_t kPackBytes = int64_t{256} << 20;

std::vector<ChunkId> WriteAll(RocksChunkStore& store, uint64_t first_pack,
                              const std::string& data, int64_t chunk, int64_t total) {
  std::vector<ChunkId> ids;
  for (int64_t done = 0; done < total; ++first_pack) {
    auto writer = store.NewPack(first_pack);
    Check(writer.status());
    while (done < total && (*writer)->size_bytes() < kPackBytes) {
      const size_t offset = static_cast<size_t>(done) % data.size();
      auto id = (*writer)->Append(
          absl::string_view(data.data() + offset, static_cast<size_t>(chunk)));
      Check(id.status());
      ids.push_back(*id);
      done += chunk;
    }
    Check((*writer)->Finish());
    Check(store.Publish(*std::move(writer)));
  }
  return ids;
}

void ReadAll(RocksChunkStore& store, const std::vector<ChunkId>& ids, int threads) {
  std::atomic<size_t> next{0};
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&] {
      for (size_t i; (i = next.fetch_add(1)) < ids.size();) {
        Check(store.Read(ids[i]).status());
      }
    });
  }
  for (std::thread& thread : pool) thread.join();
}

void Raw(const std::string& path, const std::string& data, int64_t total) {
  const double gb = 1e-9 * static_cast<double>(total);
  const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR, 0600);
  {
    Section section("disk_write_fdatasync", gb);
    for (int64_t done = 0; done < total; done += static_cast<int64_t>(data.size())) {
      if (write(fd, data.data(), data.size()) < 0) std::abort();
    }
    fdatasync(fd);
  }
  std::vector<char> buffer(size_t{4} << 20);
  for (int pass = 0; pass < 2; ++pass) {
    Section section("disk_read_warm_touched", gb);
    for (int64_t at = 0; at < total; at += static_cast<int64_t>(buffer.size())) {
      if (pread(fd, buffer.data(), buffer.size(), at) < 0) std::abort();
    }
  }
  close(fd);
  unlink(path.c_str());
}

void DropPageCache(const std::string& folder, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const int fd = open((folder + "/" + name).c_str(), O_RDONLY);
    if (fd < 0) continue;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: engine_bench FOLDER [MEBIBYTES]\n");
    return 2;
  }
  const int64_t total = (argc > 2 ? std::atoll(argv[2]) : 1024) << 20;
  const double gb = 1e-9 * static_cast<double>(total);
  RocksOptions options;
  options.path = argv[1];
  auto folder = Folder::Open(options);
  Check(folder.status());
  RocksChunkStore store(*folder);
  Check(store.Reopen({}));

  std::string data(size_t{64} << 20, '\0');
  std::mt19937_64 random(1);
  for (size_t i = 0; i < data.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(&data[i], &word, 8);
  }
  Raw(options.path + "/raw", data, total);
  uint64_t pack = 1;
  for (int round = 0; round < 3; ++round) {
    for (const int mib : {1, 4}) {
      const int64_t chunk = int64_t{mib} << 20;
      const std::string suffix = "_" + std::to_string(mib) + "mib";
      TouchMemory(size_t{1} << 30);
      std::vector<ChunkId> ids;
      {
        Section section("engine_write" + suffix, gb);
        ids = WriteAll(store, pack, data, chunk, total);
      }
      for (const int threads : {1, 2}) {
        ReadAll(store, ids, threads);
        Section section("engine_read_warm" + suffix + "_" + std::to_string(threads) + "t",
                        gb);
        ReadAll(store, ids, threads);
      }
      auto packs = store.ListPacks();
      Check(packs.status());
      std::vector<std::string> names;
      std::vector<uint64_t> numbers;
      for (int i = 1; i < 1000; ++i) {
        char name[32];
        std::snprintf(name, sizeof(name), "%06d.sst", i);
        names.push_back(name);
      }
      for (const auto& info : *packs) numbers.push_back(info.pack);
      sync();
      DropPageCache((*folder)->packs(), names);
      {
        Section section("engine_read_cold" + suffix + "_1t", gb);
        ReadAll(store, ids, 1);
      }
      Check(store.DropPacks(numbers));
      pack += 1000;
    }
  }
  const auto counts = store.pool_counts();
  std::printf(
      "{\"name\": \"engine_pool\", \"fresh\": %lld, \"reused\": %lld, "
      "\"copied_reads\": %lld}\n",
      static_cast<long long>(counts.fresh), static_cast<long long>(counts.reused),
      static_cast<long long>(store.copied_reads()));
  return 0;
}
