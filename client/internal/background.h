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

}  // namespace modelstore::internal
