#include "storage/holds.h"

#include <algorithm>
#include <utility>

#include "storage/random_id.h"

namespace modelstore::storage {
namespace {

// Shortest life of an unheld entry, and so of its token, unless the checkpoint is
// finalized.
constexpr absl::Duration kTokenLife = absl::Minutes(10);

}  // namespace

Hold& Hold::operator=(Hold&& other) noexcept {
  if (this == &other) return *this;
  if (holds_ != nullptr) holds_->Release(uid_, version_);
  holds_ = std::exchange(other.holds_, nullptr);
  uid_ = std::move(other.uid_);
  version_ = other.version_;
  return *this;
}

Hold::~Hold() {
  if (holds_ != nullptr) holds_->Release(uid_, version_);
}

std::optional<Hold> Holds::Acquire(const std::string& uid, int64_t version) {
  MutexLock lock(mutex_);
  Entry& entry = entries_[{uid, version}];
  if (entry.finalizing) return std::nullopt;
  ++entry.count;
  return Hold(this, uid, version);
}

void Holds::Retract(Hold hold) {
  if (hold.empty()) return;
  MutexLock lock(mutex_);
  hold.holds_ = nullptr;
  auto it = entries_.find({hold.uid(), hold.version()});
  if (it == entries_.end()) return;
  Entry& entry = it->second;
  --entry.count;
  // An entry that somebody held before keeps its grace time and its token.
  if (entry.count == 0 && !entry.finalizing && entry.token.empty() &&
      entry.released == absl::InfinitePast()) {
    entries_.erase(it);
  }
}

bool Holds::IsHeld(const std::string& uid, int64_t version) {
  MutexLock lock(mutex_);
  auto it = entries_.find({uid, version});
  return it != entries_.end() && it->second.count > 0;
}

void Holds::Release(const std::string& uid, int64_t version) {
  MutexLock lock(mutex_);
  Entry& entry = entries_[{uid, version}];
  --entry.count;
  entry.released = now_();
  Forget();
}

// Drops entries that nobody has held for long. Makes a pass whenever the table has
// doubled since the last one, so that the amortized cost per release is constant and the
// table has at most twice the entries that it needs. The minimum of kTokenLife is
// independent of the grace time, which may be 0: a load is not held between its plan and
// its first byte.
void Holds::Forget() {
  if (entries_.size() <= forget_above_) return;
  const absl::Time over = now_() - std::max(grace_, kTokenLife);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const Entry& entry = it->second;
    if (entry.count == 0 && !entry.finalizing && entry.released < over) {
      tokens_.erase(entry.token);
      it = entries_.erase(it);
    } else {
      ++it;
    }
  }
  forget_above_ = std::max<size_t>(64, 2 * entries_.size());
}

std::string Holds::Token(const Hold& hold, const HeldCheckpoint& content) {
  MutexLock lock(mutex_);
  const Key key{hold.uid(), hold.version()};
  Entry& entry = entries_[key];
  if (entry.token.empty()) {
    entry.token = RandomHexId();
    entry.content = std::make_shared<const HeldCheckpoint>(content);
    tokens_[entry.token] = key;
  }
  return entry.token;
}

std::optional<Holds::Reopened> Holds::Reopen(absl::string_view token) {
  MutexLock lock(mutex_);
  auto it = tokens_.find(std::string(token));
  if (it == tokens_.end()) return std::nullopt;
  Entry& entry = entries_[it->second];
  // The bytes exist until the collector finalizes the checkpoint, so the token needs no
  // expiry of its own.
  if (entry.finalizing) return std::nullopt;
  ++entry.count;
  return Reopened{Hold(this, it->second.first, it->second.second), entry.content};
}

bool Holds::BeginFinalize(const std::string& uid, int64_t version,
                          absl::Time dead_since) {
  MutexLock lock(mutex_);
  const absl::Time now = now_();
  if (dead_since + grace_ > now) return false;
  auto it = entries_.find({uid, version});
  if (it != entries_.end()) {
    const Entry& entry = it->second;
    if (entry.count > 0 || entry.finalizing) return false;
    if (entry.released + grace_ > now) return false;
  }
  entries_[{uid, version}].finalizing = true;
  return true;
}

void Holds::EndFinalize(const std::string& uid, int64_t version) {
  MutexLock lock(mutex_);
  auto it = entries_.find({uid, version});
  if (it == entries_.end()) return;
  tokens_.erase(it->second.token);
  entries_.erase(it);
}

size_t Holds::size() {
  MutexLock lock(mutex_);
  return entries_.size();
}

}  // namespace modelstore::storage
