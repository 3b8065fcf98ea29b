#include "server/core/model_watchers.h"

#include <utility>

namespace modelstore::server {

ModelWatchers::Subscription::Subscription(std::shared_ptr<ModelWatchers> watchers,
                                          std::string model_uid)
    : watchers_(std::move(watchers)), model_uid_(std::move(model_uid)) {
  MutexLock lock(watchers_->mutex_);
  watchers_->subscriptions_[model_uid_].insert(this);
}

ModelWatchers::Subscription::~Subscription() {
  MutexLock lock(watchers_->mutex_);
  const auto subscriptions = watchers_->subscriptions_.find(model_uid_);
  subscriptions->second.erase(this);
  if (subscriptions->second.empty()) watchers_->subscriptions_.erase(subscriptions);
}

void ModelWatchers::Subscription::MarkSeen() {
  MutexLock lock(watchers_->mutex_);
  changed_ = false;
}

bool ModelWatchers::Subscription::Wait(std::function<void()> ready) {
  // Both under one lock, so that a change in between is not missed.
  MutexLock lock(watchers_->mutex_);
  if (changed_) return false;
  ready_ = std::move(ready);
  return true;
}

bool ModelWatchers::Subscription::CancelWait() {
  MutexLock lock(watchers_->mutex_);
  return std::exchange(ready_, nullptr) != nullptr;
}

void ModelWatchers::Wake(const absl::flat_hash_set<Subscription*>& subscriptions,
                         Ready& ready) {
  for (Subscription* subscription : subscriptions) {
    subscription->changed_ = true;
    if (subscription->ready_)
      ready.push_back(std::exchange(subscription->ready_, nullptr));
  }
}

void ModelWatchers::Changed(absl::string_view model_uid) {
  Ready ready;
  {
    MutexLock lock(mutex_);
    if (model_uid.empty()) {
      for (const auto& [uid, subscriptions] : subscriptions_) Wake(subscriptions, ready);
    } else if (const auto subscriptions = subscriptions_.find(model_uid);
               subscriptions != subscriptions_.end()) {
      Wake(subscriptions->second, ready);
    }
  }
  // Without the lock: a callback takes locks of the reactor, which calls Wait() and
  // CancelWait() with these held.
  for (const auto& call : ready) call();
}

}  // namespace modelstore::server
