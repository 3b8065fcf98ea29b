// The architecture of a model as a tree: finding, adding, replacing, removing
// and renaming modules, and the steps of their forward. Torch-free; what a type's
// arguments are is in architecture_types.h, its tensors in architecture_tensors.h,
// its text in architecture_text.h.
//
// A module is named by its path from the root, joined by dots (`classifier.6`);
// the root is the empty path.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/contract/architecture/types.h"

namespace modelstore {

// Bounds of a whole architecture. The depth counts the root as 1.
inline constexpr int kMaxModuleDepth = 64;
inline constexpr int64_t kMaxModules = 65'536;
inline constexpr int64_t kMaxModuleNameBytes = 256;

// INVALID_ARGUMENT, naming the field below `field`, unless: depth and number are
// within bounds; every name below the root is UTF-8, not empty, without dots, and
// unique among its siblings; every type is named; every forward step is one of
// the children or a function of ParseStep(); no argument contradicts its type or
// another one (CheckArguments()).
absl::Status ValidateArchitecture(absl::string_view field,
                                  const v1::Architecture& architecture);

// Of one module within its parent.
absl::Status ValidateModuleName(absl::string_view field, absl::string_view name);

// Of the tree, its root included. Stops counting above kMaxModules.
int64_t CountModules(const ModuleTree& root);

// Null where the path leads nowhere.
const ModuleTree* FindModule(const ModuleTree& root, absl::string_view path);
ModuleTree* FindModule(ModuleTree& root, absl::string_view path);
// The path without its last element, and that element.
std::pair<absl::string_view, absl::string_view> SplitModulePath(absl::string_view path);
std::string JoinModulePath(absl::string_view parent, absl::string_view name);

// The edits. Each leaves the tree as it was when it fails: INVALID_ARGUMENT naming
// `field` for a malformed path or name or a tree that would be too large, NOT_FOUND
// for a path that leads nowhere, ALREADY_EXISTS for a name that is taken.

// Whether the new module takes part in its parent's forward.
enum class InForward : uint8_t { kYes, kNo };

// As PyTorch's add_module(): a Sequential runs it last; anywhere else it is only
// registered, unless `append_to_forward` and the parent has a forward written
// down. `module`'s own name is replaced by the path's last element.
absl::StatusOr<InForward> AddModule(absl::string_view field, absl::string_view path,
                                    ModuleTree module, bool append_to_forward,
                                    ModuleTree& root);
// Takes the name, the place among its siblings, and so every step of the old one.
// The root is replaced by the empty path.
absl::Status ReplaceModule(absl::string_view field, absl::string_view path,
                           ModuleTree module, ModuleTree& root);
// Takes it out of its parent's forward too. Not the root.
absl::Status RemoveModule(absl::string_view field, absl::string_view path,
                          ModuleTree& root);
// Gives all children of a module new names at once, so that two may swap theirs;
// forward steps follow. One name for each child.
absl::Status RenameChildren(absl::string_view field,
                            const std::vector<std::string>& names, ModuleTree& parent);
// Forward steps follow. Not the root.
absl::Status RenameModule(absl::string_view field, absl::string_view path,
                          absl::string_view new_name, ModuleTree& root);

// One step of a forward: `classifier`, `flatten(1)`, `add(downsample)`. Every step
// takes the tensor that the one before it gave; the first takes the module's input.
struct ForwardStep {
  // A child runs; empty for a function.
  std::string child;
  // One of ForwardFunctions(), applied to the tensor.
  std::string function;
  // Its arguments: integers and floats.
  std::vector<v1::Value> arguments;
  // `add` and `mul` combine with the module's input, or with what this child makes
  // of the module's input: the shortcut of a residual block.
  std::string operand;
};

// Reads the steps of one module's forward: its children are looked up by name, so that
// each step costs the same however many there are.
class StepParser {
 public:
  // The module outlives this and keeps its children's names.
  explicit StepParser(const ModuleTree& module);

  // INVALID_ARGUMENT naming `field` if `text` is neither a child of the module nor a
  // call of a known function with arguments that it takes.
  absl::StatusOr<ForwardStep> Parse(absl::string_view field,
                                    absl::string_view text) const;

 private:
  absl::StatusOr<ForwardStep> WithOperand(absl::string_view field, absl::string_view text,
                                          absl::string_view function) const;

  absl::flat_hash_set<absl::string_view> children_;
};

// One step alone.
absl::StatusOr<ForwardStep> ParseStep(absl::string_view field, absl::string_view text,
                                      const ModuleTree& module);

struct ForwardFunction {
  const char* name;
  int min_arguments;
  int max_arguments;
};
// The closed set, by PyTorch's names: torch.flatten, torch.nn.functional.relu, ...
absl::Span<const ForwardFunction> ForwardFunctions();

// The steps of a module's forward: those written down; of a Sequential without, its
// children in order; nothing where unknown.
std::vector<std::string> ForwardSteps(const ModuleTree& module);

}  // namespace modelstore
