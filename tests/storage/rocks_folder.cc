#include "tests/storage/rocks_folder.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "rocksdb/file_system.h"
#include "storage/rocksdb/pack_format.h"

namespace modelstore::storage {

namespace fs = std::filesystem;

namespace {

// In memory where there is room: these tests open stores by the thousand.
fs::path Base() {
  std::error_code error;
  const fs::space_info space = fs::space("/dev/shm", error);
  const bool roomy = !error && space.available > (uintmax_t{256} << 20);
  return roomy ? fs::path("/dev/shm") : fs::temp_directory_path();
}

}  // namespace

RocksFolder::RocksFolder() {
  static std::atomic<int> next{0};
  path_ =
      (Base() / absl::StrCat("modelstore-", getpid(), "-", next.fetch_add(1))).string();
  fs::remove_all(path_);
}

RocksFolder::~RocksFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::vector<std::string> RocksFolder::Files(const std::string& subfolder,
                                            const std::string& part) const {
  std::vector<std::string> paths;
  const fs::path folder =
      subfolder.empty() ? fs::path(path_) : fs::path(path_) / subfolder;
  if (!fs::exists(folder)) return paths;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() &&
        absl::StrContains(entry.path().filename().string(), part)) {
      paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::optional<uint64_t> PackIn(const std::string& path) {
  std::optional<uint64_t> pack;
  rocks::PackOfFile(rocksdb::FileSystem::Default().get(), path, &pack)
      .PermitUncheckedError();
  return pack;
}

std::string FileBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

void FlipBitAt(const std::string& path, int64_t offset, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  char byte = 0;
  file.get(byte);
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ (1 << bit)));
}

void CutFile(const std::string& path, int64_t size) {
  fs::resize_file(path, static_cast<uintmax_t>(size));
}

void CopyFolder(const std::string& from, const std::string& to) {
  fs::copy(from, to, fs::copy_options::recursive);
}

}  // namespace modelstore::storage
