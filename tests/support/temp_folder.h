// A temporary folder for a test.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace modelstore::support {

// Emptied by the constructor, removed by the destructor.
class TempFolder {
 public:
  enum Where {
    kOnDisk,
    // In a memory file system if there is one with enough space. For tests that simulate
    // every sync.
    kInMemory,
  };

  explicit TempFolder(const std::string& name, Where where = kOnDisk) {
    const char* base = std::getenv("TMPDIR");
    std::string folder = base == nullptr ? "/tmp" : base;
    std::error_code error;
    const auto memory = std::filesystem::space("/dev/shm", error);
    if (where == kInMemory && !error && memory.available > (uint64_t{1} << 30)) {
      folder = "/dev/shm";
    }
    path_ = folder + "/modelstore-" + std::to_string(getpid()) + "-" + name;
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace modelstore::support
