// SIGKILL of a server at work, again and again. Clients save, delete, collect and
// upload; at a random moment the server is killed, now and then once more while it
// recovers, and started again. Then everything that was acknowledged must be there
// bit for bit, and nothing else.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/contract/mutex.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/seed.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using support::RawTensor;
using support::TensorSet;

constexpr char kModel[] = "models/saved";
constexpr char kUploadModel[] = "models/uploaded";
constexpr int kKept = 6;
constexpr int kChunks = 12;
constexpr size_t kChunkBytes = 128 << 10;

// What the clients were told, and what they had asked for when the server died.
struct Truth {
  Mutex mutex;
  std::map<int64_t, TensorSet> acknowledged GUARDED_BY(mutex);
  std::set<int64_t> deleted GUARDED_BY(mutex);
  std::optional<int64_t> deleting GUARDED_BY(mutex);
  std::optional<std::pair<std::string, TensorSet>> saving GUARDED_BY(mutex);
  int64_t newest GUARDED_BY(mutex) = 0;

  // The open upload: which of its chunks were sealed.
  std::string upload GUARDED_BY(mutex);
  std::string upload_request GUARDED_BY(mutex);
  std::optional<RawTensor> uploading GUARDED_BY(mutex);
  std::set<int> sealed GUARDED_BY(mutex);

  void Acknowledge(int64_t version, const TensorSet& content) REQUIRES(mutex) {
    EXPECT_GT(version, newest) << "a version number was given twice";
    newest = std::max(newest, version);
    acknowledged[version] = content;
    saving.reset();
  }
};

std::string VersionName(int64_t version) {
  return absl::StrCat(kModel, "/checkpoints/", version);
}

int FilesOfPacks(const std::string& data) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(data + "/packs")) {
    count += entry.path().extension() == ".sst" ? 1 : 0;
  }
  return count;
}

class SigkillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(), .data = "", .flags = {"--grace", "0s"}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // Fails the test if a call failed although the server was alive.
  template <typename Status>
  bool Failed(const char* what, const Status& status) {
    if (status.ok()) return false;
    EXPECT_TRUE(killed_) << what << ": " << Text(status);
    return true;
  }
  static std::string Text(const absl::Status& s) { return s.ToString(); }
  static std::string Text(const grpc::Status& s) { return s.error_message(); }

  // Now small (one stream, into the catalog), now large (an upload, packs), most
  // often sharing chunks with the version before.
  TensorSet NextContent(std::mt19937_64& random, const TensorSet& previous) {
    if (!previous.entries().empty() && random() % 3 != 0) {
      return previous.WithChanged(random() % previous.entries().size(), random());
    }
    const int64_t bytes = random() % 3 == 0 ? 100'000 : 2'500'000;
    return TensorSet({.seed = random(), .tensors = 6, .bytes = bytes});
  }

  void SaveLoop(uint64_t seed) {
    std::mt19937_64 random(seed);
    auto client = support::ConnectTo(server_->address(), milliseconds(0));
    if (!client.ok()) return void(Failed("connect", client.status()));
    while (!killed_) {
      SaveOptions options;
      options.request_id = absl::StrCat("save-", ++requests_);
      content_ = NextContent(random, content_);
      {
        MutexLock lock(truth_.mutex);
        truth_.saving = {options.request_id, content_};
      }
      auto info = support::Save(*client, kModel, content_, options);
      if (Failed("save", info.status())) return;
      MutexLock lock(truth_.mutex);
      truth_.Acknowledge(info->version, content_);
      ++saves_;
    }
  }

  void DeleteLoop(uint64_t seed) {
    std::mt19937_64 random(seed);
    auto client = support::ConnectTo(server_->address(), milliseconds(0));
    if (!client.ok()) return void(Failed("connect", client.status()));
    while (!killed_) {
      int64_t victim = 0;
      {
        MutexLock lock(truth_.mutex);
        if (truth_.acknowledged.size() > kKept) {
          victim = std::next(truth_.acknowledged.begin(),
                             random() % truth_.acknowledged.size())
                       ->first;
          truth_.deleting = victim;
        }
      }
      if (victim != 0) {
        if (Failed("delete", client->DeleteCheckpoint(VersionName(victim)))) return;
        MutexLock lock(truth_.mutex);
        truth_.acknowledged.erase(victim);
        truth_.deleted.insert(victim);
        truth_.deleting.reset();
        ++deletes_;
      }
      if (random() % 2 == 0) {
        if (Failed("collect", server_->CollectGarbage().status())) return;
        ++sweeps_;
      }
      std::this_thread::sleep_for(milliseconds(random() % 10));
    }
  }

  // Brings one upload on, a few chunks a stream.
  void UploadLoop(uint64_t seed) {
    std::mt19937_64 random(seed);
    support::RawClient raw(server_->NewChannel());
    while (!killed_) {
      std::string upload;
      std::vector<std::string> chunks;
      std::vector<int> indexes;
      {
        MutexLock lock(truth_.mutex);
        if (!truth_.uploading) {
          truth_.uploading.emplace("t", random(), kChunkBytes, kChunks);
          truth_.upload_request = absl::StrCat("upload-", ++requests_);
          truth_.upload.clear();
          truth_.sealed.clear();
        }
        upload = truth_.upload;
        for (int i = 0; i < kChunks && chunks.size() < 3; ++i) {
          if (truth_.sealed.count(i) != 0) continue;
          chunks.push_back(truth_.uploading->chunks[i]);
          indexes.push_back(i);
        }
      }
      if (upload.empty()) {
        v1::Upload created;
        if (Failed("create upload", CreateUpload(raw, &created))) return;
        MutexLock lock(truth_.mutex);
        truth_.upload = created.name();
      } else if (!chunks.empty()) {
        if (Failed("upload", raw.Upload(upload, 0, {}, chunks))) return;
        MutexLock lock(truth_.mutex);
        truth_.sealed.insert(indexes.begin(), indexes.end());
        ++streams_;
      }
      std::this_thread::sleep_for(milliseconds(random() % 30));
    }
  }

  grpc::Status CreateUpload(support::RawClient& raw, v1::Upload* upload) {
    std::string request;
    {
      MutexLock lock(truth_.mutex);
      request = truth_.upload_request;
    }
    return raw.CreateUpload(kUploadModel, request, upload);
  }

  void Work(std::mt19937_64& random) {
    killed_ = false;
    std::thread save([this, seed = random()] { SaveLoop(seed); });
    std::thread remove([this, seed = random()] { DeleteLoop(seed); });
    std::thread upload([this, seed = random()] { UploadLoop(seed); });
    std::this_thread::sleep_for(std::chrono::microseconds(5'000 + random() % 200'000));
    killed_ = true;
    server_->Kill();
    save.join();
    remove.join();
    upload.join();
  }

  void CheckVersions(Client& client) {
    MutexLock lock(truth_.mutex);
    std::map<int64_t, CheckpointInfo> listed;
    auto list = client.ListCheckpoints(kModel);
    if (absl::IsNotFound(list.status()) && truth_.acknowledged.empty()) {
      list = std::vector<CheckpointInfo>();
    }
    ASSERT_TRUE(list.ok()) << list.status();
    for (CheckpointInfo& info : *list) listed[info.version] = info;

    if (truth_.deleting && listed.count(*truth_.deleting) == 0) {
      truth_.acknowledged.erase(*truth_.deleting);
      truth_.deleted.insert(*truth_.deleting);
    }
    truth_.deleting.reset();
    for (const auto& [version, info] : listed) {
      EXPECT_EQ(truth_.deleted.count(version), 0u) << "deleted, and back: " << version;
      if (truth_.acknowledged.count(version) != 0) continue;
      ASSERT_TRUE(truth_.saving && truth_.saving->first == info.request_id)
          << "nobody saved version " << version;
      truth_.Acknowledge(version, TensorSet(truth_.saving->second));
    }
    for (const auto& [version, content] : truth_.acknowledged) {
      EXPECT_EQ(listed.count(version), 1u) << "acknowledged, and lost: " << version;
      EXPECT_EQ(support::Verify(client, VersionName(version), content), absl::OkStatus())
          << "version " << version;
      ++verified_;
    }
    if (truth_.saving) {
      // It left nothing: the same request makes the version now.
      SaveOptions options;
      options.request_id = truth_.saving->first;
      const TensorSet content = truth_.saving->second;
      auto info = support::Save(client, kModel, content, options);
      ASSERT_TRUE(info.ok()) << info.status();
      truth_.Acknowledge(info->version, content);
    }
  }

  // The upload goes on where it was: what was sealed is not asked for again. Every
  // third time it is brought to its end.
  void CheckUpload(bool finish) {
    support::RawClient raw(server_->NewChannel());
    v1::Upload upload;
    {
      MutexLock lock(truth_.mutex);
      if (!truth_.uploading) return;
    }
    grpc::Status s = CreateUpload(raw, &upload);
    ASSERT_TRUE(s.ok()) << s.error_message();
    MutexLock lock(truth_.mutex);
    if (!truth_.upload.empty()) {
      EXPECT_EQ(upload.name(), truth_.upload);
    }
    truth_.upload = upload.name();
    std::vector<int> missing;
    s = raw.FindMissing(upload.name(), truth_.uploading->chunks, &missing);
    ASSERT_TRUE(s.ok()) << s.error_message();
    std::vector<std::string> chunks;
    for (int i : missing) {
      EXPECT_EQ(truth_.sealed.count(i), 0u) << "sealed, and lost: chunk " << i;
      chunks.push_back(truth_.uploading->chunks[i]);
    }
    if (!finish) return;
    s = raw.Upload(upload.name(), 0, {truth_.uploading->tensor}, chunks);
    ASSERT_TRUE(s.ok()) << s.error_message();
    v1::Checkpoint committed;
    s = raw.Commit(upload.name(), &committed);
    ASSERT_TRUE(s.ok()) << s.error_message();
    v1::LoadCheckpointRequest request;
    request.set_name(committed.name());
    std::string bytes;
    s = raw.Load(request, &bytes);
    ASSERT_TRUE(s.ok()) << s.error_message();
    EXPECT_EQ(bytes == truth_.uploading->bytes(), true) << "the resumed upload differs";
    v1::DeleteCheckpointRequest remove;
    remove.set_name(committed.name());
    support::Context context;
    v1::DeleteCheckpointResponse removed;
    EXPECT_TRUE(raw.store().DeleteCheckpoint(&context, remove, &removed).ok());
    truth_.uploading.reset();
    ++resumed_;
  }

  void CheckSpace() {
    auto result = server_->CollectGarbage();
    ASSERT_TRUE(result.ok()) << result.status();
    auto stats = server_->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(result->waiting_bytes(), 0);
    EXPECT_EQ(FilesOfPacks(server_->data()), stats->pack_count());
    MutexLock lock(truth_.mutex);
    int64_t living = kChunks * static_cast<int64_t>(kChunkBytes);
    for (const auto& [version, content] : truth_.acknowledged)
      living += content.total_bytes();
    EXPECT_LE(stats->pack_bytes(), living + stats->reclaimable_bytes() +
                                       stats->pack_count() * 8'192 + (1 << 20));
  }

  void DeleteEverything() {
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    for (const char* model : {kModel, kUploadModel}) {
      EXPECT_EQ(client->DeleteModel(model, {.force = true}), absl::OkStatus());
    }
    ASSERT_TRUE(server_->CollectGarbage().ok());
    auto stats = server_->Stats();
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(stats->pack_count(), 0);
    EXPECT_EQ(stats->pack_bytes(), 0);
    EXPECT_EQ(FilesOfPacks(server_->data()), 0);
  }

  support::TempFolder folder_{"sigkill"};
  std::unique_ptr<support::ServerProcess> server_;
  std::atomic<bool> killed_{false};
  Truth truth_;
  TensorSet content_;
  std::atomic<int> requests_{0};
  std::atomic<int> saves_{0}, deletes_{0}, sweeps_{0}, streams_{0};
  int verified_ = 0, resumed_ = 0;
};

TEST_F(SigkillTest, NothingAcknowledgedIsLostAndNothingElseStays) {
  std::mt19937_64 random(TestSeed());
  const int rounds = TestRounds(200);
  int twice = 0;
  double slowest = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Work(random);
    if (random() % 4 == 0) {
      ++twice;
      ASSERT_EQ(server_->Launch(), absl::OkStatus());
      std::this_thread::sleep_for(milliseconds(random() % 150));
      server_->Kill();
    }
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(server_->Restart(), absl::OkStatus());
    slowest = std::max(
        slowest,
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    auto client = support::ConnectTo(server_->address());
    ASSERT_TRUE(client.ok()) << client.status();
    CheckVersions(*client);
    if (HasFailure()) break;
    CheckUpload(round % 3 == 2);
    CheckSpace();
    if (HasFailure()) break;
  }
  if (HasFailure()) {
    std::printf("the server's log ends:\n%s\n", server_->LogTail().c_str());
    return;
  }
  DeleteEverything();
  std::printf(
      "sigkill: %d kills, %d of them twice; %d saves, %d deletes, %d sweeps, %d sealed "
      "streams acknowledged; %d loads compared, %d uploads resumed; slowest restart "
      "%.3f s\n",
      rounds, twice, saves_.load(), deletes_.load(), sweeps_.load(), streams_.load(),
      verified_, resumed_, slowest);
}

}  // namespace
}  // namespace modelstore
