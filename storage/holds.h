// Counts the users of each checkpoint. A held checkpoint keeps its bytes, even if it is
// deleted, until the grace time after the last hold is released.
//
// A user first acquires the hold and then checks that the version exists; the collector
// finalizes a version only after its deletion and while nobody holds it. So either the
// user finds the version deleted, or the collector finds it held.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/mutex.h"

namespace modelstore::storage {

// What a token reopens: the records as they were read, as the version may be deleted by
// then.
struct HeldCheckpoint {
  v1::ModelRecord model;
  v1::CheckpointRecord checkpoint;
};

class Holds;

// One hold on a checkpoint, released by the destructor. Movable. Must not outlive its
// Holds.
class Hold {
 public:
  Hold() = default;
  Hold(Hold&& other) noexcept { *this = std::move(other); }
  Hold& operator=(Hold&& other) noexcept;
  ~Hold();

  bool empty() const { return holds_ == nullptr; }
  const std::string& uid() const { return uid_; }
  int64_t version() const { return version_; }

 private:
  friend class Holds;
  Hold(Holds* holds, std::string uid, int64_t version)
      : holds_(holds), uid_(std::move(uid)), version_(version) {}

  Holds* holds_ = nullptr;
  std::string uid_;
  int64_t version_ = 0;
};

// Thread-safe.
class Holds {
 public:
  // `now` is the store's time; `grace` is StoreOptions::grace.
  Holds(absl::Duration grace, std::function<absl::Time()> now)
      : grace_(grace), now_(std::move(now)) {}

  // Adds a hold. Absent while the collector finalizes this checkpoint. Does not check
  // that the checkpoint exists.
  std::optional<Hold> Acquire(const std::string& uid, int64_t version) EXCLUDES(mutex_);
  // Releases a hold on a checkpoint that was not found, without starting a grace time:
  // nobody has read anything.
  void Retract(Hold hold) EXCLUDES(mutex_);

  // True if somebody holds it now.
  bool IsHeld(const std::string& uid, int64_t version) EXCLUDES(mutex_);

  // Returns the token of the held checkpoint, the same for all its holders.
  std::string Token(const Hold& hold, const HeldCheckpoint& content) EXCLUDES(mutex_);
  struct Reopened {
    Hold hold;
    std::shared_ptr<const HeldCheckpoint> content;
  };
  // Adds a hold by a token. Absent if the token is unknown or has expired.
  std::optional<Reopened> Reopen(absl::string_view token) EXCLUDES(mutex_);

  // Returns true if nobody holds a checkpoint that was deleted at `dead_since` and its
  // grace times are over. Nobody can then acquire a hold on it until EndFinalize().
  bool BeginFinalize(const std::string& uid, int64_t version, absl::Time dead_since)
      EXCLUDES(mutex_);
  void EndFinalize(const std::string& uid, int64_t version) EXCLUDES(mutex_);

  // Number of checkpoints that have an entry.
  size_t size() EXCLUDES(mutex_);

 private:
  friend class Hold;
  using Key = std::pair<std::string, int64_t>;
  struct Entry {
    int64_t count = 0;
    // When the last hold was released; never, if in the infinite past.
    absl::Time released = absl::InfinitePast();
    bool finalizing = false;
    std::string token;
    std::shared_ptr<const HeldCheckpoint> content;
  };

  void Release(const std::string& uid, int64_t version) EXCLUDES(mutex_);
  void Forget() REQUIRES(mutex_);

  const absl::Duration grace_;
  const std::function<absl::Time()> now_;
  Mutex mutex_;
  std::map<Key, Entry> entries_ GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, Key> tokens_ GUARDED_BY(mutex_);
  // Number of entries above which Forget() makes its next pass.
  size_t forget_above_ GUARDED_BY(mutex_) = 64;
};

}  // namespace modelstore::storage
