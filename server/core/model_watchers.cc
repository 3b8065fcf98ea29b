#include "server/core/model_watchers.h"

#include <utility>

namespace modelstore::server {

ModelWatchers::Seat::Seat(std::shared_ptr<ModelWatchers> watchers, std::string model_uid)
    : watchers_(std::move(watchers)), model_uid_(std::move(model_uid)) {
  MutexLock lock(watchers_->mutex_);
  watchers_->seats_[model_uid_].insert(this);
}

ModelWatchers::Seat::~Seat() {
  MutexLock lock(watchers_->mutex_);
  const auto seats = watchers_->seats_.find(model_uid_);
  seats->second.erase(this);
  if (seats->second.empty()) watchers_->seats_.erase(seats);
}

void ModelWatchers::Seat::Look() {
  MutexLock lock(watchers_->mutex_);
  changed_ = false;
}

bool ModelWatchers::Seat::Wait(std::function<void()> ready) {
  MutexLock lock(watchers_->mutex_);
  if (changed_) return false;
  ready_ = std::move(ready);
  return true;
}

bool ModelWatchers::Seat::StopWaiting() {
  MutexLock lock(watchers_->mutex_);
  return std::exchange(ready_, nullptr) != nullptr;
}

void ModelWatchers::Wake(const absl::flat_hash_set<Seat*>& seats, Ready& ready) {
  for (Seat* seat : seats) {
    seat->changed_ = true;
    if (seat->ready_) ready.push_back(std::exchange(seat->ready_, nullptr));
  }
}

void ModelWatchers::Changed(absl::string_view model_uid) {
  Ready ready;
  {
    MutexLock lock(mutex_);
    if (model_uid.empty()) {
      for (const auto& [uid, seats] : seats_) Wake(seats, ready);
    } else if (const auto seats = seats_.find(model_uid); seats != seats_.end()) {
      Wake(seats->second, ready);
    }
  }
  for (const auto& call : ready) call();
}

}  // namespace modelstore::server
