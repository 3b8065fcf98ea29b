// A real file system that really is full: a tmpfs of its own, mounted for the test,
// filled at five different points of a save. (The many other points are filled by
// quota, in process, in the tests of storage.)
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/support/checkpoints.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using support::TensorSet;

constexpr char kModel[] = "models/m";
constexpr int64_t kMiB = int64_t{1} << 20;

// A tmpfs mounted while it lives.
class Mount {
 public:
  Mount(std::string path, int64_t bytes) : path_(std::move(path)) {
    std::filesystem::create_directories(path_);
    ok_ = mount("tmpfs", path_.c_str(), "tmpfs", 0,
                absl::StrCat("size=", bytes).c_str()) == 0;
    error_ = errno;
  }
  ~Mount() {
    if (ok_) umount2(path_.c_str(), MNT_DETACH);
  }
  bool ok() const { return ok_; }
  int error() const { return error_; }
  const std::string& path() const { return path_; }

  int64_t FreeBytes() const {
    struct statvfs s {};
    statvfs(path_.c_str(), &s);
    return static_cast<int64_t>(s.f_bavail) * static_cast<int64_t>(s.f_bsize);
  }
  // Somebody else's file takes all but `free`.
  void Fill(int64_t free) {
    const int fd = open((path_ + "/filler").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int64_t take = FreeBytes() - free;
    if (take > 0) {
      EXPECT_EQ(posix_fallocate(fd, 0, take), 0);
    }
    close(fd);
  }
  void Empty() { std::filesystem::remove(path_ + "/filler"); }

 private:
  const std::string path_;
  bool ok_ = false;
  int error_ = 0;
};

class DiskFullTest : public ::testing::TestWithParam<int64_t> {
 protected:
  absl::StatusOr<CheckpointInfo> Save(const TensorSet& content) {
    SaveOptions options;
    options.no_base = true;
    return support::Save(*client_, kModel, content, options);
  }

  static TensorSet Content(uint64_t seed, int64_t bytes) {
    return TensorSet({.seed = seed, .tensors = 6, .bytes = bytes});
  }

  std::optional<Client> client_;
};

// The parameter: how much of a save of 24 MiB fits.
TEST_P(DiskFullTest, SavesAreRefusedTheRestWorksAndSpaceRecoversIt) {
  const int64_t room = GetParam();
  support::TempFolder folder("disk-full");
  Mount disk(folder.path() + "/disk", 160 * kMiB);
  if (!disk.ok()) {
    GTEST_SKIP() << "mounting a tmpfs is not permitted here: "
                 << std::strerror(disk.error());
  }
  // A reserve of nothing, so that the disk itself says when it is full.
  auto server = support::ServerProcess::Start(
      {.folder = folder.path(),
       .data = disk.path() + "/data",
       .flags = {"--grace", "0s", "--reserve", "0MiB", "--ballast", "8MiB"}});
  ASSERT_TRUE(server.ok()) << server.status();
  auto client = support::ConnectTo((*server)->address(), milliseconds(20'000));
  ASSERT_TRUE(client.ok()) << client.status();
  client_ = *client;

  const TensorSet large = Content(1, 24 * kMiB), small = Content(2, 100'000);
  auto first = Save(large);
  ASSERT_TRUE(first.ok()) << first.status();
  auto second = Save(small);
  ASSERT_TRUE(second.ok()) << second.status();

  disk.Fill(room);
  const int64_t free_before = disk.FreeBytes();
  auto refused = Save(Content(3, 24 * kMiB));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted)
      << refused.status();
  const int64_t free_after = disk.FreeBytes();
  // Now to the last byte.
  disk.Empty();
  disk.Fill(0);
  ASSERT_EQ(disk.FreeBytes(), 0);
  auto refused_small = Save(Content(4, 100'000));
  EXPECT_EQ(refused_small.status().code(), absl::StatusCode::kResourceExhausted)
      << refused_small.status();
  auto refused_large = Save(Content(5, 24 * kMiB));
  EXPECT_EQ(refused_large.status().code(), absl::StatusCode::kResourceExhausted)
      << refused_large.status();

  EXPECT_EQ(support::Verify(*client_, first->name, large), absl::OkStatus());
  EXPECT_EQ(support::Verify(*client_, second->name, small), absl::OkStatus());
  EXPECT_EQ(client_->ListCheckpoints(kModel)->size(), 2u);

  ASSERT_LE(disk.FreeBytes(), 0) << "the point of the next step is a disk without a byte";
  EXPECT_EQ(client_->DeleteCheckpoint(first->name), absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(client_->GetCheckpoint(first->name).status()));
  auto swept = (*server)->CollectGarbage();
  EXPECT_TRUE(swept.ok()) << swept.status();
  EXPECT_GE(disk.FreeBytes(), 15 * kMiB)
      << "the deleted checkpoint's space did not come back";
  EXPECT_EQ(support::Verify(*client_, second->name, small), absl::OkStatus());

  // With room again, and the same process: everything works.
  disk.Empty();
  const TensorSet later = Content(6, 24 * kMiB);
  auto saved = Save(later);
  ASSERT_TRUE(saved.ok()) << saved.status() << "\n" << (*server)->LogTail();
  EXPECT_EQ(support::Verify(*client_, saved->name, later), absl::OkStatus());
  EXPECT_EQ(support::Verify(*client_, second->name, small), absl::OkStatus());
  EXPECT_EQ(client_->ListCheckpoints(kModel)->size(), 2u);
  std::printf(
      "disk full with room for %.1f of 24 MiB: refused (%s); %.1f MiB free before, "
      "%.1f after; delete at 0 bytes free, saves again without restart\n",
      static_cast<double>(room) / kMiB, std::string(refused.status().message()).c_str(),
      static_cast<double>(free_before) / kMiB, static_cast<double>(free_after) / kMiB);

  // And it opens again.
  (*server)->Kill();
  ASSERT_EQ((*server)->Restart(), absl::OkStatus());
  EXPECT_EQ(support::Verify(*client_, saved->name, later), absl::OkStatus());
}

INSTANTIATE_TEST_SUITE_P(FivePoints, DiskFullTest,
                         ::testing::Values(0, 100'000, 3 * kMiB, 12 * kMiB, 23 * kMiB),
                         [](const auto& info) {
                           return absl::StrCat("room_", info.param);
                         });

}  // namespace
}  // namespace modelstore
