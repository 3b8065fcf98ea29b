// Threads that outlive the object that started them: saves go on after the last
// Client is gone. They are joined when the process exits normally, so that a
// save begun before main() returns is finished rather than torn down.
#pragma once

#include <functional>
#include <memory>

namespace modelstore::internal {

// Runs `work` on a thread of its own. `work` must end by itself: every save has a
// deadline. exit() waits for it; after fork() the child does not. False if the
// system has no thread to give.
bool RunInBackground(std::function<void()> work);

// Keeps `thing` for as long as the process lives. The child of a fork must not
// destroy what belongs to threads that it does not have.
void KeepForever(std::shared_ptr<void> thing);

}  // namespace modelstore::internal
