// Who waits for a model to change. A waiter is a callback and no thread: there may
// be thousands.
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

// Thread-safe.
class ModelWatchers {
 public:
  // One watcher's place. Its methods are called by one thread at a time; what
  // changed before the first MarkSeen() counts as not seen.
  class Subscription {
   public:
    Subscription(std::shared_ptr<ModelWatchers> watchers, std::string model_uid);
    ~Subscription();
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;

    // Whoever looks at the model afterwards sees what happened so far.
    void MarkSeen();
    // True if nothing happened since: `ready` is then called once something does,
    // by the thread that did it and under no lock of this class.
    bool Wait(std::function<void()> ready);
    // True if it waited and `ready` will not be called any more.
    bool CancelWait();

   private:
    friend class ModelWatchers;
    const std::shared_ptr<ModelWatchers> watchers_;
    const std::string model_uid_;
    // Guarded by the watchers' mutex.
    bool changed_ = true;
    std::function<void()> ready_;
  };

  // Empty: any model may have changed.
  void Changed(absl::string_view model_uid) EXCLUDES(mutex_);

 private:
  using Ready = std::vector<std::function<void()>>;
  static void Wake(const absl::flat_hash_set<Subscription*>& subscriptions, Ready& ready);

  Mutex mutex_;
  absl::flat_hash_map<std::string, absl::flat_hash_set<Subscription*>> subscriptions_
      GUARDED_BY(mutex_);
};

}  // namespace modelstore::server
