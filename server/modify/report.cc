#include "server/modify/report.h"

#include "absl/container/flat_hash_set.h"

namespace modelstore::server::modify {
namespace {

// Whether a tensor counts as a parameter. A plain state dict has no roles, so all its
// tensors count.
bool IsParameter(absl::string_view section, v1::TensorRole role) {
  return section == "model" && role != v1::TENSOR_ROLE_BUFFER;
}

}  // namespace

void Report::Warn(Warning::Kind kind, int edit_index, absl::string_view path,
                  absl::string_view message) {
  Warning warning;
  warning.set_kind(kind);
  if (edit_index >= 0) warning.set_edit_index(edit_index);
  warning.set_path(std::string(path));
  warning.set_message(std::string(message));
  warnings_.push_back(std::move(warning));
}

ParameterFate::Fate FateOf(const WorkingTensor& tensor, const WorkingCheckpoint& of) {
  if (!tensor.origin.has_value()) return ParameterFate::FATE_ADDED;
  if (!of.HasOriginalBytes(tensor)) return ParameterFate::FATE_CHANGED;
  const auto& old = of.base()->manifest().tensors(*tensor.origin);
  return tensor.key == old.key() ? ParameterFate::FATE_KEPT : ParameterFate::FATE_RENAMED;
}

std::vector<ParameterFate> Report::Fates(const WorkingCheckpoint& checkpoint) const {
  std::vector<ParameterFate> fates;
  const auto& old = checkpoint.base()->manifest();
  absl::flat_hash_set<int> kept;
  absl::flat_hash_set<std::string> keys;
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.origin.has_value()) kept.insert(*tensor.origin);
    if (!IsParameter(tensor.section, tensor.role)) continue;
    keys.insert(tensor.key);
    ParameterFate fate;
    fate.set_key(tensor.key);
    fate.set_fate(FateOf(tensor, checkpoint));
    if (tensor.origin.has_value()) {
      const std::string& old_key = old.tensors(*tensor.origin).key();
      if (old_key != tensor.key) fate.set_old_key(old_key);
    }
    AddFates(fate, fates);
  }
  for (int t = 0; t < old.tensors_size(); ++t) {
    const auto& record = old.tensors(t);
    // A removed parameter whose key another one has now is not listed: that key has an
    // entry.
    if (kept.contains(t) || keys.contains(record.key()) ||
        !IsParameter(record.section(), static_cast<v1::TensorRole>(record.role()))) {
      continue;
    }
    ParameterFate fate;
    fate.set_key(record.key());
    fate.set_fate(ParameterFate::FATE_REMOVED);
    AddFates(fate, fates);
  }
  return fates;
}

void Report::AddFates(const ParameterFate& fate,
                      std::vector<ParameterFate>& fates) const {
  const auto known = optimizers_.find(fate.key());
  if (known == optimizers_.end()) {
    fates.push_back(fate);
    fates.back().set_optimizer_fate(unknown_state_);
    return;
  }
  for (const auto& [section, state] : known->second) {
    ParameterFate& entry = fates.emplace_back(fate);
    entry.set_optimizer(section);
    entry.set_optimizer_fate(state.fate);
    if (state.group.has_value()) entry.set_optimizer_group(*state.group);
  }
}

void FitResult(v1::ModifyCheckpointResponse::Result& result) {
  // Below gRPC's default limit of 4 MiB, with room for the rest of the message.
  constexpr size_t kMaxResultBytes = size_t{3} << 20;
  const auto leave_out = [&](const char* name, auto clear) {
    if (result.ByteSizeLong() <= kMaxResultBytes) return;
    clear();
    result.add_omitted(name);
  };
  leave_out("architecture_before", [&] { result.clear_architecture_before(); });
  leave_out("architecture_after", [&] { result.clear_architecture_after(); });
  leave_out("checkpoint.architecture",
            [&] { result.mutable_checkpoint()->clear_architecture(); });
  leave_out("checkpoint.edits", [&] { result.mutable_checkpoint()->clear_edits(); });
}

}  // namespace modelstore::server::modify
