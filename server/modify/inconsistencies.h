// What tensors and architecture of a modified checkpoint disagree on.
#pragma once

#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Warns of each tensor of `model` that the architecture lacks or has in another
// shape, of each that a module lacks, and where the architecture says too little to
// tell. PyTorch allows it all, until the model is built.
void WarnAboutInconsistencies(const WorkingCheckpoint& checkpoint, Report& report);

}  // namespace modelstore::server::modify
