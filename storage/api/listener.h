// Events of storage, for the log.
#pragma once

#include "absl/strings/string_view.h"

namespace modelstore::storage {

// Receives events of storage. OnEvent() is called from any thread and must neither block
// nor call storage.
class Listener {
 public:
  enum class Severity { kInfo, kWarning, kError };
  virtual ~Listener() = default;
  virtual void OnEvent(Severity severity, absl::string_view message) = 0;
};

}  // namespace modelstore::storage
