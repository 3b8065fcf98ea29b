// Notification of watchers when a model changes. A waiting watcher is a callback, not a
// thread, because there may be thousands.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "proto/contract/mutex.h"

namespace modelstore::server {

// Thread-safe. A change sets a flag in each subscription of the model, and calls its
// callback if it is waiting. No change is missed if a watcher calls MarkSeen() before it
// reads the model, and Wait() after:
//
//   for (;;) {
//     subscription.MarkSeen();
//     read and send the state of the model;
//     if (subscription.Wait(ready)) wait until `ready` is called;
//   }
class ModelWatchers {
 public:
  // One watcher of a model, registered during its lifetime. Its methods are called by one
  // thread at a time. Initially there is an unseen change.
  class Subscription {
   public:
    Subscription(std::shared_ptr<ModelWatchers> watchers, std::string model_uid);
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

    // Clears the flag. The caller reads the model afterwards.
    void MarkSeen();
    // Returns false if the model has changed since MarkSeen(). Otherwise returns true and
    // calls `ready` once, at the next change, on the thread that made the change and with
    // no lock of this class held.
    bool Wait(std::function<void()> ready);
    // True if it was waiting; `ready` will not be called. False if `ready` was or is
    // being called.
    bool CancelWait();

   private:
    friend class ModelWatchers;
    const std::shared_ptr<ModelWatchers> watchers_;
    const std::string model_uid_;
    // Both guarded by watchers_->mutex_. ready_ is null unless it is waiting.
    bool changed_ = true;
    std::function<void()> ready_;
  };

  // Reports a change of the model. An empty uid means that any model may have changed.
  // Calls the callbacks of the waiting subscriptions.
  void Changed(absl::string_view model_uid) EXCLUDES(mutex_);

 private:
  using Ready = std::vector<std::function<void()>>;
  // Marks `subscriptions` as changed and moves their callbacks to `ready`, to be called
  // without the lock. Requires mutex_.
  static void Wake(const absl::flat_hash_set<Subscription*>& subscriptions, Ready& ready);

  Mutex mutex_;
  // By model uid. No set is empty.
  absl::flat_hash_map<std::string, absl::flat_hash_set<Subscription*>> subscriptions_
      GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
