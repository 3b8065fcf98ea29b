// Settings of optimizers and schedulers: those stored against those here.
#pragma once

#include <string>
#include <vector>

#include "modelstore/load_report.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// The elements of a list or tuple; null if it is neither, or null itself.
const std::vector<Value>* ListOf(const Value* value);

bool IsNumber(const Value& value);

// A string as it is, anything else as Python prints it.
std::string TextOf(const Value& value);

// As Python compares: 1 is 1.0, and a list is a tuple of the same elements.
bool SameSetting(const Value& a, const Value& b);

// `lr` is 0.1 in the checkpoint and 0.2 here; ...
std::string SettingsText(const std::vector<LoadReport::SettingChange>& changes);

}  // namespace modelstore::torch_internal
