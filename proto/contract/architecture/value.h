// Arguments of modules as Python writes them: making, reading and printing
// values of the API as constructor arguments. All functions are total and pure.
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
// An integer; a bool or a float is none.
std::optional<int64_t> AsInt(const v1::Value& value);
// An integer or a float.
std::optional<double> AsNumber(const v1::Value& value);
// A tuple, list or torch.Size of integers.
std::optional<std::vector<int64_t>> AsInts(const v1::Value& value);

// Equal as Python compares: 2 == 2.0.
bool SameValue(const v1::Value& a, const v1::Value& b);

// `True`, `False`, `None`, an integer or a float, as Python reads them; nothing
// if it is none of these. Integers beyond 64 bits are none.
std::optional<v1::Value> ScalarFromText(absl::string_view text);

// Python's repr(): `1e-05`, `(3, 3)`, `(2,)`, `'zeros'`.
std::string PrintValue(const v1::Value& value);
// Python's str(): as repr(), but a string without its quotes.
std::string FormatValue(const v1::Value& value);

}  // namespace modelstore
