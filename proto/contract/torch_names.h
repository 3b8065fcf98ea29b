// Names of PyTorch's dtypes and devices in values, including those that this project does
// not support for tensors and loads.
#pragma once

#include "absl/strings/string_view.h"

namespace modelstore {

// Whether `text` is the name of a torch.dtype without `torch.`.
bool IsDTypeText(absl::string_view text);
// Whether `text` is a torch.device such as `cpu` or `cuda:1`: a device type of PyTorch,
// optionally with an index from 0 to 127.
bool IsDeviceText(absl::string_view text);

}  // namespace modelstore
