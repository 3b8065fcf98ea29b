// Brings optimizer state in line with the parameters after a modification. State belongs
// to a parameter and moves with it, whatever key the parameter gets.
#pragma once

#include "absl/status/status.h"
#include "modelstore/v1/operations.pb.h"
#include "server/modify/edit_context.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/report.h"
#include "server/modify/working_checkpoint.h"

namespace modelstore::server::modify {

// Called once, after all edits. Rewrites the section of each optimizer to what an
// optimizer over the current parameters would save, and reports the fate of each
// parameter:
//
//   parameter after the edits      its optimizer state
//   unchanged bytes                kept, under the same number
//   cast to another type           kept as it is; a load converts it, as PyTorch does
//   some rows kept by an edit      the same rows kept; new rows get initial values
//   other values                   reset, with a warning
//   removed                        removed
//   new and trainable              none; the parameter joins a group (see below)
//   untied by an edit              kept by the tensor that has the old values; the
//                                  other tensors join its group as new parameters
//   frozen and in no group         none; the parameter stays outside all groups
//   not a parameter of the model   kept as it is
//
// A new parameter joins the groups that its edit chose. Otherwise it joins the groups of
// the removed parameter that had its key, otherwise those of its nearest relatives in the
// module tree. Within a group its position follows the order of the state dict.
//
// The state of LBFGS spans its whole group: it is reset if any parameter of the group has
// changed. Adagrad requires state before its first step, so a reset writes the initial
// state instead of removing it.
//
// If an index is not resolved (see OptimizerIndex::resolved()), the parameters of that
// optimizer cannot be identified. Renames and casts then only change names, changed
// values reset all its state, and any other change is INVALID_ARGUMENT at
// `optimizer_policy`. A section that is not laid out as an optimizer is left unchanged,
// with a warning.
absl::Status FollowOptimizers(v1::ModifyCheckpointRequest::OptimizerPolicy policy,
                              const OptimizerIndexes& optimizers,
                              WorkingCheckpoint& checkpoint, EditResources& resources,
                              Report& report);

}  // namespace modelstore::server::modify
