// The edits, one function each. An edit checks its arguments, changes the working
// checkpoint and adds warnings. It reads no tensor and draws no number unless it must: it
// describes bytes, which are computed once all edits are accepted.
//
// An edit that fails may leave the checkpoint partly changed; the whole modification is
// then abandoned. Its error contains the field path `edits[i].{kind}...`, which the
// helpers of EditContext add.
//
//   state_dict_edits.cc   keys, sections, requires_grad
//   cast_and_average.cc   cast, average
//   take_from.cc          a module or tensor of another checkpoint
//   merge_lora.cc         low-rank adapters
//   module_tree_edits.cc  adding, replacing, removing and renaming modules
//   resize_output.cc      the number of outputs of a module
#pragma once

#include "absl/status/status.h"
#include "modelstore/v1/edits.pb.h"
#include "server/modify/edit_context.h"

namespace modelstore::server::modify {

absl::Status ApplyRenameKeys(const v1::Edit::RenameKeys& edit, EditContext& context);
absl::Status ApplyStripPrefix(const v1::Edit::StripPrefix& edit, EditContext& context);
absl::Status ApplyAddPrefix(const v1::Edit::AddPrefix& edit, EditContext& context);
absl::Status ApplyDropKeys(const v1::Edit::DropKeys& edit, EditContext& context);
absl::Status ApplyDropSection(const v1::Edit::DropSection& edit, EditContext& context);
absl::Status ApplySetRequiresGrad(const v1::Edit::SetRequiresGrad& edit,
                                  EditContext& context);
absl::Status ApplyCast(const v1::Edit::Cast& edit, EditContext& context);
absl::Status ApplyAverage(const v1::Edit::Average& edit, EditContext& context);
absl::Status ApplyTakeFrom(const v1::Edit::TakeFrom& edit, EditContext& context);
absl::Status ApplyMergeLora(const v1::Edit::MergeLora& edit, EditContext& context);
absl::Status ApplyAddModule(const v1::Edit::AddModule& edit, EditContext& context);
absl::Status ApplyReplaceModule(const v1::Edit::ReplaceModule& edit,
                                EditContext& context);
absl::Status ApplyRemoveModule(const v1::Edit::RemoveModule& edit, EditContext& context);
absl::Status ApplyRenameModule(const v1::Edit::RenameModule& edit, EditContext& context);
absl::Status ApplyResizeOutput(const v1::Edit::ResizeOutput& edit, EditContext& context);

// Applies one edit of a request by calling the function of its kind.
absl::Status ApplyEdit(const v1::Edit& edit, EditContext& context);

}  // namespace modelstore::server::modify
