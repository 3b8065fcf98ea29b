// Names of dtypes and devices in values: whatever PyTorch has, also what no tensor
// here is of and no load takes place on.
#pragma once

#include "absl/strings/string_view.h"

namespace modelstore {

// A torch.dtype by its name without `torch.`, also those that no tensor here has.
bool IsDTypeText(absl::string_view text);
// A torch.device, such as `cpu` or `cuda:1`: a type that PyTorch knows, and an
// index from 0 to 127 or none.
bool IsDeviceText(absl::string_view text);

}  // namespace modelstore
