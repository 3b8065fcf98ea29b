// The known module types, by their names in PyTorch 1.13: arguments, printed form, and
// the children that constructors create. An unknown type is stored and printed as it was
// given.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "modelstore/v1/resources.pb.h"

namespace modelstore {

using ModuleTree = v1::Architecture::Module;

// Valid values of an argument, and their stored form.
enum class ArgumentKind : uint8_t {
  kInt,
  kSize,    // an integer from 0 to 2^40
  kCount,   // an integer from 1 to 2^40
  kNumber,  // an integer or a float, stored as given
  kFloat,   // stored as a float
  kBool,
  kString,      // one of `choices`
  kTuple,       // a tuple of `dims` sizes; one integer is repeated
  kPadding,     // kTuple, or one of `choices`
  kPads,        // a tuple of 2 * `dims` integers; one integer is repeated
  kSizes,       // an integer or a tuple of `dims` sizes, stored as given
  kOutputSize,  // kSizes whose elements may be None: the size of the input
  kShape,       // a tuple of sizes; an integer is a tuple of one
  kAnySizes,    // a size, or a tuple of any number of sizes
  kScale,       // a float, or a tuple of floats
};

struct ArgumentSpec {
  const char* name;
  ArgumentKind kind;
  // Default value in Python syntax; null: required. `=kernel_size`: the value of that
  // argument, also if None is given.
  const char* fallback = nullptr;
  // Words separated by spaces.
  const char* choices = "";
  // None is allowed.
  bool optional = false;
};

struct ModuleType {
  const char* name;
  absl::Span<const ArgumentSpec> arguments;
  // Template of extra_repr(): `{name}` is the argument, `{name!r}` quotes a string. Text
  // in brackets is printed only if its argument differs from the default.
  const char* repr;
  // Spatial dimensions of convolutions, pools and paddings.
  int dims = 0;
};

// Null if unknown. The result has static lifetime.
const ModuleType* FindModuleType(absl::string_view name);
// All types, in the order of the table.
absl::Span<const ModuleType> AllModuleTypes();

// The `_version` of PyTorch's class of this name in the `_metadata` of a state dict; 1 if
// the type is unknown.
int ModuleVersion(absl::string_view type);

using NamedValues = std::vector<std::pair<std::string, v1::Value>>;

// The module that PyTorch's constructor creates from these arguments: unnamed, in
// training mode, with the children that the constructor creates. Arguments with an empty
// name are positional and must come first. INVALID_ARGUMENT names `field`, the type and
// the argument; also for an unknown type.
absl::StatusOr<ModuleTree> MakeModule(absl::string_view field, absl::string_view type,
                                      const NamedValues& given);

// Sets the arguments of a module of known type in their stored form: ordered and
// complete. Does not change children.
absl::Status CompleteArguments(absl::string_view field, const NamedValues& given,
                               ModuleTree& module);

// OK if the module can be built: its type is known, and every argument that the
// constructor needs is present and valid. Otherwise INVALID_ARGUMENT with the reason.
// Ignores arguments that a later PyTorch has added, and children.
absl::Status CheckComplete(absl::string_view field, const ModuleTree& module);

// OK unless a present argument contradicts the type or another argument. Modules of
// unknown type, incomplete modules and missing arguments are accepted.
absl::Status CheckArguments(absl::string_view field, const ModuleTree& module);

// Marks every module of a known type that lacks arguments as incomplete, so that a module
// without the mark can be built.
void MarkIncomplete(ModuleTree& root);

// Null if there is no argument of that name.
const v1::Value* FindArgument(const ModuleTree& module, absl::string_view name);
// Whether the argument is present and True.
bool FlagOf(const ModuleTree& module, absl::string_view name);

// Maximum size in an argument: far more than a tensor can have, and small enough that
// products of a few do not overflow 64 bits.
inline constexpr int64_t kMaxArgumentSize = int64_t{1} << 40;

}  // namespace modelstore
