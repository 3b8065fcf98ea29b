#include "server/modify/module_tensors.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/modify/random_source.h"

namespace modelstore::server::modify {

bool IsUnder(const WorkingTensor& tensor, absl::string_view path) {
  return tensor.section == "model" && tensor.key.size() > path.size() &&
         absl::StartsWith(tensor.key, path) && tensor.key[path.size()] == '.';
}

bool HasTensorsUnder(const WorkingCheckpoint& checkpoint, absl::string_view path) {
  const auto& tensors = checkpoint.tensors();
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const WorkingTensor& tensor) { return IsUnder(tensor, path); });
}

ModuleTree* TreeOf(EditContext& context, absl::string_view path) {
  auto& architecture = context.checkpoint.architecture();
  if (architecture.has_value() && architecture->has_root()) {
    return architecture->mutable_root();
  }
  context.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, path,
               "the checkpoint has no architecture: only its tensors were changed");
  return nullptr;
}

absl::Status AtPath(const EditContext& context, const absl::Status& status) {
  if (status.code() == absl::StatusCode::kInvalidArgument) return status;
  return context.At("path", status);
}

namespace {

// Counts the new elements against the limits, and reserves the generator states that
// random sources keep.
absl::Status TakeRoom(const std::vector<TensorSpec>& tensors, bool draws,
                      const EditContext& context) {
  int64_t elements = 0, states = 0;
  for (const TensorSpec& spec : tensors) {
    auto count = ElementCount(spec.shape);
    if (!count.ok()) return count.status();
    // Products of sizes end at 2^62: more of them might not fit.
    elements = std::min(elements, EditResources::kMaxMadeElements) + *count;
    if (draws) {
      const int64_t blocks =
          std::min(*count, EditResources::kMaxMadeElements) / kDrawBlockElements + 1;
      states += blocks * kDrawStateBytes;
    }
  }
  if (elements > kMaxNewElements) {
    return absl::InvalidArgumentError(absl::StrCat(
        "makes ", elements, " new elements; one edit makes at most ", kMaxNewElements));
  }
  if (auto s = context.resources.TakeElements(elements); !s.ok()) return s;
  return context.resources.Reserve(states);
}

}  // namespace

absl::StatusOr<std::vector<NewTensor>> MakeTensors(const ModuleTree& module,
                                                   v1::Initialization& how,
                                                   const EditContext& context) {
  if (auto s = CheckInitialization(context.Field("initialization"), how); !s.ok()) {
    return s;
  }
  const bool draws = how.scheme() != v1::Initialization::SCHEME_ZEROS &&
                     how.scheme() != v1::Initialization::SCHEME_ONES &&
                     how.scheme() != v1::Initialization::SCHEME_CONSTANT;
  auto tensors = TensorsOf(module);
  if (draws && !how.has_seed() && tensors.ok() && !tensors->tensors.empty()) {
    // Stored with the edit, so that the version can be made again.
    std::random_device device;
    how.set_seed((uint64_t{device()} << 32) | device());
  }
  if (tensors.ok()) {
    auto s = TakeRoom(tensors->tensors, draws, context);
    if (!s.ok()) return context.At("module", s);
  }
  auto made =
      InitializeModule(module, how, [&] { return context.resources.CheckCancelled(); });
  if (!made.ok()) return context.At("module", made.status());
  return made;
}

NeighbourWatch::NeighbourWatch(const EditContext& context) {
  const auto& architecture = context.checkpoint.architecture();
  if (!architecture.has_value()) return;
  for (Mismatch& mismatch : FindMismatches(architecture->root())) {
    before_.emplace(std::move(mismatch.path), std::move(mismatch.message));
  }
}

void NeighbourWatch::Warn(const EditContext& context) const {
  const auto& architecture = context.checkpoint.architecture();
  if (!architecture.has_value()) return;
  for (const Mismatch& mismatch : FindMismatches(architecture->root())) {
    if (before_.contains({mismatch.path, mismatch.message})) continue;
    context.Warn(Warning::KIND_SHAPES_DO_NOT_FIT, mismatch.path, mismatch.message);
  }
}

}  // namespace modelstore::server::modify
