// Differences between the tensors and the architecture of a modified checkpoint.
#pragma once

#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Warns about each tensor of `model` that has no place in the architecture or another
// shape there, about each tensor that a module lacks, and about modules that cannot be
// built. These are warnings and not errors because PyTorch, too, accepts such a state
// until the model is built.
void WarnAboutInconsistencies(const WorkingCheckpoint& checkpoint, Report& report);

}  // namespace modelstore::server::modify
