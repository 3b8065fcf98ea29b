// EditList: the edits of one ModifyCheckpoint() call (modify.h), in PyTorch's terms.
//
//   EditList().ReplaceModule("classifier.6", "Linear(4096, 10)")
//             .SetRequiresGrad(false, {R"(features\..*)"})
//             .Cast(DType::kBfloat16)
//
// Paths and keys are PyTorch's: `classifier.6` is a module, `classifier.6.weight` its
// tensor, and the empty path the root. Patterns are RE2 and must match a whole key.
// modelstore/v1/edits.proto describes each edit in full. Only UTF-8 is checked here; the
// server validates the rest when the list is sent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/contract/dtype.h"

namespace modelstore {

// Initialization of new parameters, by the names of `torch.nn.init`. With a seed the
// values are bit for bit those that Python produces after torch.manual_seed(seed) on the
// same kind of machine with the same version of PyTorch.
struct Initialization {
  enum class Scheme : uint8_t {
    kDefault = 1,  // as the module's constructor does
    kZeros,
    kOnes,
    kConstant,  // every element is `value`
    kNormal,    // with `mean` and `std`
    kUniform,   // from `low` to `high`
    kXavierUniform,
    kXavierNormal,
    kKaimingUniform,
    kKaimingNormal,
  };
  Scheme scheme = Scheme::kDefault;
  double value = 0;
  double mean = 0;
  double std = 1;
  double low = 0;
  double high = 1;
  double gain = 1;            // of kXavier*
  double negative_slope = 0;  // of kKaiming*: slope of the leaky ReLU that follows
  bool fan_out = false;       // of kKaiming*: preserve the variance of gradients
  // Absent: the server draws a seed and records it with the version.
  std::optional<uint64_t> seed;
};

// A list of edits. They are applied in order, all or none; each edit sees the results of
// those before it. A value type. Methods append one edit and return the list for
// chaining.
class EditList {
 public:
  // Optional properties of a new module.
  struct NewModule {
    // Also appends it to the stored forward of its parent. Of AddModule only.
    bool in_forward = false;
    Initialization initialization;
    // Parameter group of the optimizer that its parameters join. Absent: the group of
    // its nearest sibling, or of the module that it replaces.
    std::optional<int> optimizer_group;
    // Section of the optimizer that its parameters join, such as `optimizer.critic`.
    // Empty: that of its nearest sibling, or of the module that it replaces.
    std::string optimizer;
  };
  // Adds a child `path`, whose parent must exist. `module` is in PyTorch's notation, such
  // as `Linear(1000, 10)`. It is appended to the forward of a Sequential; any other
  // parent only registers it, with a warning, unless `in_forward`.
  EditList& AddModule(std::string_view path, std::string_view module,
                      const NewModule& options);
  EditList& AddModule(std::string_view path, std::string_view module) {
    return AddModule(path, module, NewModule());
  }
  // Replaces the module at `path`, keeping its name and its place in the forward. Tensors
  // and optimizer state of the new module are new.
  EditList& ReplaceModule(std::string_view path, std::string_view module,
                          const NewModule& options);
  EditList& ReplaceModule(std::string_view path, std::string_view module) {
    return ReplaceModule(path, module, NewModule());
  }
  // Removes a module with its children, tensors and optimizer state. Not the root.
  EditList& RemoveModule(std::string_view path);
  // Renames a module within its parent; `new_name` is one path element. Not the root.
  EditList& RenameModule(std::string_view path, std::string_view new_name);

  // Initial values of new rows: the module's own initialization, zeros, or the mean of
  // the rows that are kept.
  enum class NewRows : uint8_t { kDefault = 1, kZeros, kMean };
  // Sets the number of outputs of a Linear, convolution or Embedding to `size`.
  // `keep_rows` lists the old rows to keep, in their new order; empty: the first `size`
  // rows. Kept rows keep their values and optimizer state. `seed` is used by
  // NewRows::kDefault.
  EditList& ResizeOutput(std::string_view path, int64_t size,
                         const std::vector<int64_t>& keep_rows = {},
                         NewRows new_rows = NewRows::kDefault,
                         std::optional<uint64_t> seed = std::nullopt);

  // Renames the keys that match `pattern`. `replacement` may refer to groups of the
  // pattern: `\\1`. Two tensors with the same new key are an error.
  EditList& RenameKeys(std::string_view pattern, std::string_view replacement,
                       std::string_view section = "model");
  // Removes a prefix from every key. An error if any key lacks it.
  EditList& StripPrefix(std::string_view prefix, std::string_view section = "model");
  // Prepends a prefix to every key.
  EditList& AddPrefix(std::string_view prefix, std::string_view section = "model");
  // Removes the tensors that match any pattern, and their optimizer state. A pattern that
  // matches no key is NOT_FOUND.
  EditList& DropKeys(const std::vector<std::string>& patterns,
                     std::string_view section = "model");
  // Removes a whole section, such as `optimizer`. Not `model`.
  EditList& DropSection(std::string_view section);

  // Converts the floating-point tensors that match a pattern, or all of the section if
  // there are no patterns. Other tensors and the optimizer's state are not converted.
  EditList& Cast(DType dtype, const std::vector<std::string>& patterns = {},
                 std::string_view section = "model");
  // Freezes or unfreezes the parameters that match a pattern, or all if there are none.
  EditList& SetRequiresGrad(bool requires_grad,
                            const std::vector<std::string>& patterns = {});
  // Takes a module or tensor `source` (path or key) from another checkpoint, without
  // copying bytes. It replaces `target` or is added as `target`; empty: same as `source`.
  EditList& TakeFrom(std::string_view checkpoint, std::string_view source,
                     std::string_view target = "");
  // Averages tensors over `checkpoints`, at least two. The modified checkpoint takes part
  // only if it is listed. Coefficients, one for each checkpoint, must sum to 1; empty:
  // equal weights. Patterns restrict the keys; empty: all of section `model`.
  EditList& Average(const std::vector<std::string>& checkpoints,
                    const std::vector<double>& coefficients = {},
                    const std::vector<std::string>& patterns = {});
  // Merges LoRA adapters with PEFT's key names into their weights: W + (alpha / r) * B *
  // A. `checkpoint` holds the adapters; empty: the modified checkpoint itself.
  EditList& MergeLora(double alpha, std::string_view checkpoint = "");

  // Makes the last edit change only the tensors that it names and end their ties. Without
  // this, tensors tied to them change too. No effect on an empty list.
  EditList& Untie();

  size_t size() const { return encoded_.size(); }
  // The edits, each a serialized modelstore.v1.Edit.
  const std::vector<std::string>& encoded() const { return encoded_; }
  // Why the list cannot be sent, such as `edits[1].rename_keys.pattern: is not UTF-8 at
  // byte 3`; empty if it can.
  const std::string& error() const { return error_; }

 private:
  void Push(std::pair<std::string, std::string> encoded);

  std::vector<std::string> encoded_;
  std::string error_;
};

}  // namespace modelstore
