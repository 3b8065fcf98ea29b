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

// Runs the save and sets its state's result. `job.content` is released when it
// returns: nothing reads the caller's memory any more.
void RunSave(std::shared_ptr<Connection> connection, std::shared_ptr<StagingPool> pool,
             SaveJob job);

}  // namespace modelstore::internal
