#include "client/torch/load_module.h"

#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/element_type.h"
#include "client/torch/memory_overlap.h"

namespace modelstore::torch_internal {
namespace {

std::string Quoted(const std::vector<std::string>& keys) {
  return absl::StrCat("\"", absl::StrJoin(keys, "\", \""), "\"");
}

absl::string_view Name(DType dtype) {
  const std::string_view name = DTypeName(dtype);
  return absl::string_view(name.data(), name.size());
}

// Returns the stored `version` of the module that has `key`; 1 if it is unknown, as in a
// state dict without `_metadata`.
int64_t StoredVersion(const std::string& key, const PlanIndex& plan,
                      const Value& metadata) {
  const auto module_of = [](const std::string& name) {
    const size_t dot = name.rfind('.');
    return name.substr(0, dot == std::string::npos ? 0 : dot);
  };
  std::string path = module_of(key);
  // `_metadata` uses the stored path. A neighbour of `key` that is in the plan gives it.
  for (const char* neighbour : {"running_mean", "running_var", "weight", "bias"}) {
    const int64_t index =
        plan.Find("model", path.empty() ? neighbour : absl::StrCat(path, ".", neighbour));
    if (index < 0) continue;
    path = module_of(plan.info(index).key);
    break;
  }
  const Value* entry = metadata.Find(path);
  const Value* version = entry ? entry->Find("version") : nullptr;
  return version ? version->AsInt().value_or(1) : 1;
}

// Whether a stored tensor can be loaded into `target` without a shape mismatch.
bool ShapeFits(const TensorInfo& stored, const torch::Tensor& target) {
  // PyTorch loads a tensor of one element from before version 0.4 into a scalar.
  if (target.dim() == 0 && stored.shape == std::vector<int64_t>{1}) return true;
  return target.sizes() == c10::IntArrayRef(stored.shape);
}

// Finds tensors for which copy_() would throw, before the transfer starts.
absl::Status CheckWritable(const std::string& key, const torch::Tensor& target) {
  absl::string_view why;
  if (target.is_quantized() || target.layout() != torch::kStrided || target.is_meta()) {
    why = "is not dense";
  } else if (target.is_inference() && !c10::InferenceMode::is_enabled()) {
    why = "was made in inference mode and cannot be written outside of it";
  } else if (OverlapsItself(target)) {
    why =
        "has elements that share memory, as after expand, unfold or as_strided: "
        "register one with a memory of its own, such as its clone()";
  } else {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("tensor `", key, "` of the module ", why));
}

// Returns the stored keys that neither the module nor extra_tensors has.
std::vector<std::string> Unexpected(const LoadArgs& args,
                                    const KeyPatterns& non_persistent,
                                    std::vector<std::string> stored) {
  // A state dict receives every tensor of `model`.
  if (args.module == nullptr && args.state_dict != nullptr) return {};
  std::unordered_set<std::string> extra;
  for (const auto& [key, tensor] : args.extra_tensors) extra.insert(key);
  std::erase_if(stored, [&](const std::string& key) { return extra.contains(key); });
  return args.module ? UnexpectedKeys(*args.module, non_persistent, stored) : stored;
}

// Checks single matches and collects what Verdict() refuses.
class Matcher {
 public:
  Matcher(const PlanIndex& plan, const LoadArgs& args, const LoadOptions& options,
          LoadReport& report)
      : plan_(plan), args_(args), options_(options), report_(report) {}

  // Checks shape and dtype of one pair and appends it to `matches` if it can be loaded.
  // Fails only for a target that cannot be written at all; policies are applied by
  // Verdict().
  absl::Status Add(const StateEntry& entry, int64_t index, std::vector<Match>& matches) {
    const TensorInfo& stored = plan_.info(index);
    if (!ShapeFits(stored, entry.tensor)) {
      if (args_.shape != Policy::kIgnore) {
        report_.shape_mismatch.push_back(
            {entry.key, stored.shape, entry.tensor.sizes().vec()});
      }
      return absl::OkStatus();
    }
    if (absl::Status status = CheckWritable(entry.key, entry.tensor); !status.ok()) {
      return status;
    }
    absl::StatusOr<DType> wanted = DTypeFromTorch(entry.tensor.scalar_type());
    if (!wanted.ok()) return wanted.status();
    // `kept` is the dtype in the checkpoint, stored.dtype the one on the wire. A cast on
    // the server to a third type would lose precision unnoticed.
    const DType kept = plan_.stored_dtype(index);
    if (*wanted != kept) NoteCast(entry.key, kept, *wanted);
    if (options_.target_dtype.has_value() && stored.dtype != kept &&
        stored.dtype != *wanted) {
      refused_casts_.push_back(absl::StrCat("target_dtype would cast ", entry.key, " to ",
                                            Name(stored.dtype), " on its way into ",
                                            Name(*wanted)));
    }
    matches.push_back({entry.key, index, entry.tensor});
    return absl::OkStatus();
  }

  // Returns one error with all reasons, in PyTorch's order and similar wording.
  absl::Status Verdict(Policy missing, Policy unexpected) const {
    std::vector<std::string> reasons;
    if (missing == Policy::kFail && !report_.missing.empty()) {
      reasons.push_back(absl::StrCat("missing key(s): ", Quoted(report_.missing)));
    }
    if (unexpected == Policy::kFail && !report_.unexpected.empty()) {
      reasons.push_back(absl::StrCat("unexpected key(s): ", Quoted(report_.unexpected)));
    }
    if (args_.shape == Policy::kFail) {
      for (const LoadReport::ShapeMismatch& m : report_.shape_mismatch) {
        reasons.push_back(absl::StrCat("size mismatch for ", m.key, ": ",
                                       ShapeText(m.stored), " in the checkpoint, ",
                                       ShapeText(m.wanted), " in the module"));
      }
    }
    reasons.insert(reasons.end(), refused_casts_.begin(), refused_casts_.end());
    if (reasons.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "the checkpoint does not fit the module: ", absl::StrJoin(reasons, "; ")));
  }

 private:
  // Reports a change of dtype. Casts between floating-point types are always allowed.
  void NoteCast(const std::string& key, DType stored, DType wanted) {
    const bool allowed = IsFloatingPoint(stored) && IsFloatingPoint(wanted);
    if (allowed || args_.dtype != Policy::kIgnore) {
      report_.dtype_change.push_back({key, stored, wanted});
    }
    if (allowed || args_.dtype != Policy::kFail) return;
    refused_casts_.push_back(absl::StrCat("dtype change for ", key, ": ", Name(stored),
                                          " in the checkpoint, ", Name(wanted),
                                          " in the module"));
  }

  const PlanIndex& plan_;
  const LoadArgs& args_;
  const LoadOptions& options_;
  LoadReport& report_;
  std::vector<std::string> refused_casts_;
};

}  // namespace

PlanIndex::PlanIndex(const std::vector<TensorInfo>& tensors) : tensors_(&tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    by_name_.emplace(absl::StrCat(tensors[i].section, ":", tensors[i].key), i);
  }
}

void PlanIndex::NoteStoredTypes(const std::vector<TensorInfo>& stored) {
  for (const TensorInfo& tensor : stored) {
    const int64_t index = Find(tensor.section, tensor.key);
    if (index >= 0) stored_dtypes_.emplace(index, tensor.dtype);
  }
}

DType PlanIndex::stored_dtype(int64_t index) const {
  const auto it = stored_dtypes_.find(index);
  return it == stored_dtypes_.end() ? info(index).dtype : it->second;
}

absl::Status PlanIndex::Rename(const KeyRenames& renames, LoadReport& report) {
  if (renames.empty()) return absl::OkStatus();
  const std::vector<int64_t> indices = Section("model");
  std::vector<std::string> stored;
  for (int64_t index : indices) stored.push_back(info(index).key);
  absl::StatusOr<std::vector<std::string>> keys = renames.ApplyAll(stored);
  if (!keys.ok()) return keys.status();
  for (size_t i = 0; i < indices.size(); ++i) {
    by_new_name_.emplace((*keys)[i], indices[i]);
    if ((*keys)[i] == stored[i]) continue;
    report.renamed.emplace_back(stored[i], (*keys)[i]);
    renamed_.emplace(indices[i], (*keys)[i]);
  }
  return absl::OkStatus();
}

const std::string& PlanIndex::KeyOf(int64_t index) const {
  const auto it = renamed_.find(index);
  return it == renamed_.end() ? info(index).key : it->second;
}

int64_t PlanIndex::Find(const std::string& section, const std::string& key) const {
  if (section == "model" && !by_new_name_.empty()) {
    const auto it = by_new_name_.find(key);
    return it == by_new_name_.end() ? -1 : it->second;
  }
  const auto it = by_name_.find(absl::StrCat(section, ":", key));
  return it == by_name_.end() ? -1 : it->second;
}

std::vector<int64_t> PlanIndex::Section(const std::string& section) const {
  std::vector<int64_t> indices;
  for (size_t i = 0; i < tensors_->size(); ++i) {
    if ((*tensors_)[i].section == section) indices.push_back(static_cast<int64_t>(i));
  }
  return indices;
}

int64_t PlanIndex::Root(int64_t index) const {
  const auto it = by_name_.find(info(index).tied_to);
  return it == by_name_.end() ? index : it->second;
}

absl::StatusOr<std::vector<Match>> MatchModule(
    const std::vector<StateEntry>& entries, const PlanIndex& plan, const Value& metadata,
    const std::vector<std::string>& left_out, const KeyPatterns& non_persistent,
    const LoadArgs& args, const LoadOptions& options, LoadReport& report) {
  const Policy otherwise = args.strict ? Policy::kFail : Policy::kReport;
  const Policy missing = args.missing.value_or(otherwise);
  const Policy unexpected = args.unexpected.value_or(otherwise);
  const std::unordered_set<std::string> filtered(left_out.begin(), left_out.end());
  std::vector<Match> matches;
  Matcher matcher(plan, args, options, report);
  for (const StateEntry& entry : entries) {
    const int64_t index = plan.Find("model", entry.key);
    if (index >= 0) {
      absl::Status status = matcher.Add(entry, index, matches);
      if (!status.ok()) return status;
      // Excluded by the selection, or introduced by a later version of the class than the
      // stored one.
    } else if (filtered.count(entry.key) > 0 ||
               entry.since_version > StoredVersion(entry.key, plan, metadata)) {
      report.skipped.push_back(entry.key);
    } else if (missing != Policy::kIgnore) {
      report.missing.push_back(entry.key);
    }
  }
  if (unexpected != Policy::kIgnore) {
    std::vector<std::string> stored;
    for (int64_t index : plan.Section("model")) stored.push_back(plan.KeyOf(index));
    report.unexpected = Unexpected(args, non_persistent, stored);
  }
  if (absl::Status status = matcher.Verdict(missing, unexpected); !status.ok()) {
    return status;
  }
  return matches;
}

}  // namespace modelstore::torch_internal
