// The module types that modelstore knows, in PyTorch 1.13's names: their
// arguments, how they print, and the children that their constructors make. A
// type that is not here is kept and printed as it came.
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

// What an argument may be, and the one form in which it is stored.
enum class ArgumentKind : uint8_t {
  kInt,
  kSize,    // an integer from 0 to 2^40
  kCount,   // an integer from 1 to 2^40
  kNumber,  // an integer or a float, stored as written
  kFloat,   // stored as a float
  kBool,
  kString,      // one of `choices`
  kTuple,       // a tuple of `dims` sizes; one integer stands for all of them
  kPadding,     // kTuple, or one of `choices`
  kPads,        // a tuple of 2 * `dims` integers; one stands for all
  kSizes,       // an integer or a tuple of `dims` sizes, stored as written
  kOutputSize,  // kSizes whose parts may be None: as large as the input
  kShape,       // a tuple of sizes; an integer is a tuple of one
  kAnySizes,    // a size, or a tuple of any number of sizes
  kScale,       // a float, or a tuple of floats
};

struct ArgumentSpec {
  const char* name;
  ArgumentKind kind;
  // What it is when not given, as Python writes it; null: it must be given.
  // `=kernel_size` is the value of another argument, also when None is given.
  const char* fallback = nullptr;
  // Words, parted by spaces.
  const char* choices = "";
  // None may be given.
  bool optional = false;
};

struct ModuleType {
  const char* name;
  absl::Span<const ArgumentSpec> arguments;
  // extra_repr(): `{name}` is the argument, `{name!r}` with a string's quotes;
  // what is in brackets appears only if its argument differs from the fallback.
  const char* repr;
  // Spatial dimensions of convolutions, pools and paddings.
  int dims = 0;
};

// Null if unknown. Lives as long as the program.
const ModuleType* FindModuleType(absl::string_view name);
// In the order of the table.
absl::Span<const ModuleType> AllModuleTypes();

// The `_version` that PyTorch's class of this name gives the `_metadata` of a state
// dict; 1 where it is not known.
int ModuleVersion(absl::string_view type);

using NamedValues = std::vector<std::pair<std::string, v1::Value>>;

// The module that PyTorch's constructor makes of these arguments, unnamed, in
// training mode, with the children that it gives itself. Arguments without a name
// are taken by position and come first. INVALID_ARGUMENT names `field`, the type
// and the argument; also for a type that is unknown.
absl::StatusOr<ModuleTree> MakeModule(absl::string_view field, absl::string_view type,
                                      const NamedValues& given);

// Brings the arguments of a module of known type into their stored form: in
// order, complete. Children stay as they are.
absl::Status CompleteArguments(absl::string_view field, const NamedValues& given,
                               ModuleTree& module);

// OK if a module of this type can be built from what is known of it: its type is known
// and its arguments, each of its kind, are those that its constructor needs. Otherwise
// INVALID_ARGUMENT says what is wrong. Arguments that a later PyTorch has added do not
// count. Children are not looked at.
absl::Status CheckComplete(absl::string_view field, const ModuleTree& module);

// OK if no argument that is there contradicts the type or another one. Nothing is said
// of a module of unknown type, of one that is incomplete, or of arguments that lack.
absl::Status CheckArguments(absl::string_view field, const ModuleTree& module);

// Marks each module of a known type that lacks arguments as incomplete: what says that
// it is complete can be built.
void MarkIncomplete(ModuleTree& root);

// Null if it has none of that name.
const v1::Value* FindArgument(const ModuleTree& module, absl::string_view name);
// Whether it is there and says True.
bool FlagOf(const ModuleTree& module, absl::string_view name);

// The largest size that a module's argument may state: far beyond what a tensor
// holds, and small enough that products of a few stay in 64 bits.
inline constexpr int64_t kMaxArgumentSize = int64_t{1} << 40;

}  // namespace modelstore
