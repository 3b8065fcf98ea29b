// A folder for an embedded store in tests, and ways to hurt the files in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace modelstore::storage {

// A path that does not exist yet; what comes to be there is removed at the end.
class RocksFolder {
 public:
  RocksFolder();
  ~RocksFolder();
  RocksFolder(const RocksFolder&) = delete;
  RocksFolder& operator=(const RocksFolder&) = delete;

  const std::string& path() const { return path_; }
  // Paths of the files in a subfolder (empty: the folder itself) whose name
  // contains `part`, sorted.
  std::vector<std::string> Files(const std::string& subfolder,
                                 const std::string& part) const;

 private:
  std::string path_;
};

// The pack that the file of a pack holds.
std::optional<uint64_t> PackIn(const std::string& path);

std::string FileBytes(const std::string& path);
void WriteBytes(const std::string& path, const std::string& bytes);
void FlipBitAt(const std::string& path, int64_t offset, int bit);
void CutFile(const std::string& path, int64_t size);
void CopyFolder(const std::string& from, const std::string& to);

}  // namespace modelstore::storage
