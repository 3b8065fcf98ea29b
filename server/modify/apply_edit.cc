#include "server/modify/apply_edit.h"

#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"

namespace modelstore::server::modify {

absl::Status ApplyEdit(const v1::Edit& edit, EditContext& context) {
  switch (edit.kind_case()) {
    case v1::Edit::kRenameKeys:
      return ApplyRenameKeys(edit.rename_keys(), context);
    case v1::Edit::kStripPrefix:
      return ApplyStripPrefix(edit.strip_prefix(), context);
    case v1::Edit::kAddPrefix:
      return ApplyAddPrefix(edit.add_prefix(), context);
    case v1::Edit::kDropKeys:
      return ApplyDropKeys(edit.drop_keys(), context);
    case v1::Edit::kDropSection:
      return ApplyDropSection(edit.drop_section(), context);
    case v1::Edit::kSetRequiresGrad:
      return ApplySetRequiresGrad(edit.set_requires_grad(), context);
    case v1::Edit::kCast:
      return ApplyCast(edit.cast(), context);
    case v1::Edit::kAverage:
      return ApplyAverage(edit.average(), context);
    case v1::Edit::kTakeFrom:
      return ApplyTakeFrom(edit.take_from(), context);
    case v1::Edit::kMergeLora:
      return ApplyMergeLora(edit.merge_lora(), context);
    case v1::Edit::kAddModule:
      return ApplyAddModule(edit.add_module(), context);
    case v1::Edit::kReplaceModule:
      return ApplyReplaceModule(edit.replace_module(), context);
    case v1::Edit::kRemoveModule:
      return ApplyRemoveModule(edit.remove_module(), context);
    case v1::Edit::kRenameModule:
      return ApplyRenameModule(edit.rename_module(), context);
    case v1::Edit::kResizeOutput:
      return ApplyResizeOutput(edit.resize_output(), context);
    case v1::Edit::KIND_NOT_SET:
      break;
  }
  return InvalidField(absl::StrCat("edits[", context.index, "]"),
                      "has no kind, such as cast or replace_module");
}

}  // namespace modelstore::server::modify
