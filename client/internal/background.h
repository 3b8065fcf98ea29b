// Threads that outlive the object that started them: saves continue after the last Client
// is destroyed. A normal process exit joins them, so that a save started before main()
// returns is completed.
#pragma once

#include <functional>
#include <memory>

namespace modelstore::internal {

// Runs `work` on a new thread. `work` must end by itself, as every save does at its
// deadline. exit() waits for it, except in the child of a fork. False if no thread could
// be started.
bool RunInBackground(std::function<void()> work);

// Keeps `thing` until the process ends. The child of a fork must not destroy objects that
// belong to threads which exist only in the parent.
void KeepForever(std::shared_ptr<void> thing);

}  // namespace modelstore::internal
