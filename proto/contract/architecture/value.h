// Creates, reads and prints values as arguments in Python syntax. All functions are total
// and have no side effects.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

v1::Value NoneValue();
v1::Value BoolValue(bool value);
v1::Value IntValue(int64_t value);
v1::Value FloatValue(double value);
v1::Value StringValue(absl::string_view value);
v1::Value TupleValue(absl::Span<const int64_t> values);

bool IsNone(const v1::Value& value);
// The integer; absent for a bool or a float.
std::optional<int64_t> AsInt(const v1::Value& value);
// The value of an integer or a float.
std::optional<double> AsNumber(const v1::Value& value);
// The elements of a tuple, list or torch.Size of integers.
std::optional<std::vector<int64_t>> AsInts(const v1::Value& value);

// Whether the values are equal in Python: 2 == 2.0.
bool SameValue(const v1::Value& a, const v1::Value& b);

// Parses `True`, `False`, `None`, an integer or a float in Python syntax. Absent for
// anything else, including integers beyond 64 bits.
std::optional<v1::Value> ScalarFromText(absl::string_view text);

// Python's repr(): `1e-05`, `(3, 3)`, `(2,)`, `'zeros'`.
std::string PrintValue(const v1::Value& value);
// Python's str(): as repr(), but a string without its quotes.
std::string FormatValue(const v1::Value& value);

}  // namespace modelstore
