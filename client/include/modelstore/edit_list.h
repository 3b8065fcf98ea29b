// EditList: the steps of a modification, in PyTorch's words.
//
//   EditList().ReplaceModule("classifier.6", "Linear(4096, 10)")
//             .SetRequiresGrad(false, {R"(features\..*)"})
//             .Cast(DType::kBfloat16)
//
// Paths and keys are PyTorch's: a module is `classifier.6`, its tensor
// `classifier.6.weight`; patterns are RE2 and match a key of section `model` whole.
// modelstore/v1/edits.proto tells each edit in full. Nothing but UTF-8 is
// checked here: the server does, when the list is sent (modify.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/contract/dtype.h"

namespace modelstore {

// How new parameters get their first values: `torch.nn.init`, by its names. With a
// seed they are, bit for bit, what Python gives after torch.manual_seed(seed) on the
// same kind of machine with the same PyTorch.
struct Initialization {
  enum class Scheme : uint8_t {
    kDefault = 1,  // what the module's own constructor does
    kZeros,
    kOnes,
    kConstant,  // `value`
    kNormal,    // `mean`, `std`
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
  double gain = 1;            // of xavier
  double negative_slope = 0;  // of kaiming
  bool fan_out = false;       // of kaiming
  // Absent: the server draws one and keeps it with the version.
  std::optional<uint64_t> seed;
};

// Steps of a modification, done in this order, all or none. A value type; methods
// append and return the list, so that they chain.
class EditList {
 public:
  // What a new module may say beside its type.
  struct NewModule {
    // Also appended to a forward that is written down.
    bool in_forward = false;
    Initialization initialization;
    // Absent: the group of its nearest sibling, or of what it replaces.
    std::optional<int> optimizer_group;
    // Section of the optimizer that it joins, such as `optimizer.critic`; empty: that of
    // its nearest sibling, or of what it replaces.
    std::string optimizer;
  };
  EditList& AddModule(std::string_view path, std::string_view module,
                      const NewModule& options);
  EditList& AddModule(std::string_view path, std::string_view module) {
    return AddModule(path, module, NewModule());
  }
  EditList& ReplaceModule(std::string_view path, std::string_view module,
                          const NewModule& options);
  EditList& ReplaceModule(std::string_view path, std::string_view module) {
    return ReplaceModule(path, module, NewModule());
  }
  EditList& RemoveModule(std::string_view path);
  EditList& RenameModule(std::string_view path, std::string_view new_name);

  enum class NewRows : uint8_t { kDefault = 1, kZeros, kMean };
  // `keep_rows` empty: the first ones.
  EditList& ResizeOutput(std::string_view path, int64_t size,
                         const std::vector<int64_t>& keep_rows = {},
                         NewRows new_rows = NewRows::kDefault,
                         std::optional<uint64_t> seed = std::nullopt);

  // `replacement` may refer to the groups of the pattern: `\\1`.
  EditList& RenameKeys(std::string_view pattern, std::string_view replacement,
                       std::string_view section = "model");
  EditList& StripPrefix(std::string_view prefix, std::string_view section = "model");
  EditList& AddPrefix(std::string_view prefix, std::string_view section = "model");
  EditList& DropKeys(const std::vector<std::string>& patterns,
                     std::string_view section = "model");
  EditList& DropSection(std::string_view section);

  // All floating-point tensors of the section, or those that a pattern matches.
  EditList& Cast(DType dtype, const std::vector<std::string>& patterns = {},
                 std::string_view section = "model");
  // All parameters, or those that a pattern matches.
  EditList& SetRequiresGrad(bool requires_grad,
                            const std::vector<std::string>& patterns = {});
  // A module or tensor of another checkpoint; `target` empty: under the same name.
  EditList& TakeFrom(std::string_view checkpoint, std::string_view source,
                     std::string_view target = "");
  // Equal shares without coefficients, which must sum to 1.
  EditList& Average(const std::vector<std::string>& checkpoints,
                    const std::vector<double>& coefficients = {},
                    const std::vector<std::string>& patterns = {});
  // `checkpoint` empty: the adapters are in the model itself.
  EditList& MergeLora(double alpha, std::string_view checkpoint = "");

  // The edit before changes only the tensors that it names, and these are tied no
  // longer. Nothing on an empty list.
  EditList& Untie();

  size_t size() const { return encoded_.size(); }
  // Each a serialized modelstore.v1.Edit.
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
