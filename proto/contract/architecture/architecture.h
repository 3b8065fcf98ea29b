// The architecture of a model as a tree of modules: lookup, edits, validation, and the
// steps of a forward. Torch-free. The types and their arguments are in types.h, their
// tensors in tensors.h, their text in text.h.
//
// A module is named by its path from the root, joined by dots (`classifier.6`). The root
// is the empty path.
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

// Limits of an architecture. The root has depth 1.
inline constexpr int kMaxModuleDepth = 64;
inline constexpr int64_t kMaxModules = 65'536;
inline constexpr int64_t kMaxModuleNameBytes = 256;

// INVALID_ARGUMENT, naming the field below `field`, unless:
//   - depth and number of modules are within the limits;
//   - every name below the root is UTF-8, not empty, without dots, and unique among its
//     siblings;
//   - every module has a type;
//   - every forward step is a child or a function (ParseStep());
//   - no argument contradicts its type or another argument (CheckArguments()).
absl::Status ValidateArchitecture(absl::string_view field,
                                  const v1::Architecture& architecture);

// Checks the name of one module within its parent.
absl::Status ValidateModuleName(absl::string_view field, absl::string_view name);

// Number of modules, including the root. Stops counting above kMaxModules.
int64_t CountModules(const ModuleTree& root);

// Null if there is no module at `path`.
const ModuleTree* FindModule(const ModuleTree& root, absl::string_view path);
ModuleTree* FindModule(ModuleTree& root, absl::string_view path);
// Returns the path without its last element, and that element.
std::pair<absl::string_view, absl::string_view> SplitModulePath(absl::string_view path);
std::string JoinModulePath(absl::string_view parent, absl::string_view name);

// Edits. A failed edit does not change the tree. Errors name `field`: INVALID_ARGUMENT
// for a malformed path or name, or a tree that would be too large; NOT_FOUND if there is
// no module at the path; ALREADY_EXISTS if the name is in use.

// Whether the new module is a step of its parent's forward.
enum class InForward : uint8_t { kYes, kNo };

// As PyTorch's add_module(): a Sequential runs the module last; other parents only
// register it, unless `append_to_forward` is set and the parent has an explicit forward.
// Sets `module`'s name to the last element of the path.
absl::StatusOr<InForward> AddModule(absl::string_view field, absl::string_view path,
                                    ModuleTree module, bool append_to_forward,
                                    ModuleTree& root);
// Replaces a module. The new one has the old one's name, position and forward steps. The
// empty path replaces the root.
absl::Status ReplaceModule(absl::string_view field, absl::string_view path,
                           ModuleTree module, ModuleTree& root);
// Removes a module, also from its parent's forward. The root cannot be removed.
absl::Status RemoveModule(absl::string_view field, absl::string_view path,
                          ModuleTree& root);
// Renames all children of a module at once, so that two may swap names, and updates the
// forward. `names` has one name per child.
absl::Status RenameChildren(absl::string_view field,
                            const std::vector<std::string>& names, ModuleTree& parent);
// Renames a module and updates the forward. The root has no name.
absl::Status RenameModule(absl::string_view field, absl::string_view path,
                          absl::string_view new_name, ModuleTree& root);

// One step of a forward: `classifier`, `flatten(1)`, `add(downsample)`. The first step
// takes the module's input, each other step the result of the previous one.
struct ForwardStep {
  // The child that runs; empty for a function.
  std::string child;
  // One of ForwardFunctions(), applied to the tensor.
  std::string function;
  // Its arguments: integers and floats.
  std::vector<v1::Value> arguments;
  // For `add` and `mul`: the child whose output for the module's input is the second
  // operand, as in the shortcut of a residual block. Empty: the module's input itself.
  std::string operand;
};

// Parses the steps of one module's forward. Children are in a hash table, so the cost of
// a step does not depend on their number.
class StepParser {
 public:
  // `module` must outlive this and must not change its children's names.
  explicit StepParser(const ModuleTree& module);

  // INVALID_ARGUMENT naming `field` unless `text` is a child of the module or a valid
  // call of a known function.
  absl::StatusOr<ForwardStep> Parse(absl::string_view field,
                                    absl::string_view text) const;

 private:
  absl::StatusOr<ForwardStep> WithOperand(absl::string_view field, absl::string_view text,
                                          absl::string_view function) const;

  absl::flat_hash_set<absl::string_view> children_;
};

// Parses a single step.
absl::StatusOr<ForwardStep> ParseStep(absl::string_view field, absl::string_view text,
                                      const ModuleTree& module);

struct ForwardFunction {
  const char* name;
  int min_arguments;
  int max_arguments;
};
// All functions, by PyTorch's names: torch.flatten, torch.nn.functional.relu, ...
absl::Span<const ForwardFunction> ForwardFunctions();

// The steps of a module's forward: the explicit ones; for a Sequential without them, its
// children in order; empty if unknown.
std::vector<std::string> ForwardSteps(const ModuleTree& module);

}  // namespace modelstore
