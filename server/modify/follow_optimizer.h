// The optimizers' state after a modification: it follows its parameter by name.
#pragma once

#include "absl/status/status.h"
#include "modelstore/v1/operations.pb.h"
#include "server/modify/edit_context.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Called once, after all edits. Brings the section of each optimizer to what an optimizer
// over the parameters as they are now would have saved, and tells the report of each:
//
//   bytes as they were       its state is kept, under the same number
//   cast to another type     so is that: a load converts it, as PyTorch does
//   rows kept by an edit     its state's rows are kept alike, new ones begin anew
//   other bytes              its state begins anew, and the report warns of it
//   gone                     so is its state
//   new, and trained         it joins the groups that its edit has settled, else those
//                            of the parameter that had its key, else those of its
//                            nearest relatives, at its place of the state dict
//   untied by an edit        that with the values that it had keeps the state, the
//                            others join its group as new ones
//   frozen and in no group   it stays out
//   none of the model's      it stays as it is
//
// The state of LBFGS, which spans its group, begins anew if any parameter of the
// group is not what it was. Adagrad cannot step without a state: one that begins anew
// is written down.
//
// Where an index is not resolved, renames and casts change names alone, other bytes
// let all state of that optimizer begin anew, and anything else is INVALID_ARGUMENT at
// `optimizer_policy`. A section that is no optimizer's stays as it is: a warning.
absl::Status FollowOptimizers(v1::ModifyCheckpointRequest::OptimizerPolicy policy,
                              const OptimizerIndexes& optimizers,
                              WorkingCheckpoint& checkpoint, EditResources& resources,
                              Report& report);

}  // namespace modelstore::server::modify
