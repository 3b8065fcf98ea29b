// One save, from the caller's bytes to a durable version.
#pragma once

#include <memory>
#include <string>

#include "client/internal/save_state.h"
#include "client/internal/staging_pool.h"
#include "modelstore/connection.h"
#include "modelstore/options.h"

namespace modelstore::internal {

struct SaveJob {
  std::string model_id;
  SaveContent content;
  SaveOptions options;
  Deadline deadline;
  std::shared_ptr<SaveHandle::State> state;
};

// Runs the save and sets the result in `job.state`. Releases `job.content` before the
// result is set: the caller's memory is not accessed afterwards.
void RunSave(std::shared_ptr<Connection> connection, std::shared_ptr<StagingPool> pool,
             SaveJob job);

}  // namespace modelstore::internal
