// Compares stored settings of optimizers and schedulers with the live ones.
#pragma once

#include <string>
#include <vector>

#include "modelstore/load_report.h"
#include "modelstore/value.h"

namespace modelstore::torch_internal {

// Returns the elements of a list or tuple; null for other values and for a null pointer.
const std::vector<Value>* ListOf(const Value* value);

bool IsNumber(const Value& value);

// Returns a string unchanged, and any other value as Python prints it.
std::string TextOf(const Value& value);

// Compares as Python does for numbers: 1 equals 1.0. A list equals a tuple of the same
// elements.
bool SameSetting(const Value& a, const Value& b);

// For messages: "`lr` is 0.1 in the checkpoint and 0.2 here; ...".
std::string SettingsText(const std::vector<LoadReport::SettingChange>& changes);

}  // namespace modelstore::torch_internal
