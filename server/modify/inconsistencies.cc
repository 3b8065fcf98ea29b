#include "server/modify/inconsistencies.h"

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture/architecture.h"
#include "proto/contract/architecture/tensors.h"

namespace modelstore::server::modify {
namespace {

constexpr int kWholeCheckpoint = -1;

Warning::Kind KindOf(Inconsistency::Kind kind) {
  switch (kind) {
    case Inconsistency::Kind::kMissing:
      return Warning::KIND_TENSOR_MISSING;
    case Inconsistency::Kind::kUnexpected:
      return Warning::KIND_TENSOR_WITHOUT_MODULE;
    case Inconsistency::Kind::kShape:
      break;
  }
  return Warning::KIND_SHAPES_DO_NOT_FIT;
}

// Warns about each module of a known type that cannot be built. `known` holds the paths
// that have such a warning already.
void WarnAboutIncomplete(const ModuleTree& module, const std::string& path,
                         const absl::flat_hash_set<std::string>& known, Report& report) {
  if (FindModuleType(module.type()) != nullptr && !known.contains(path)) {
    const auto complete = CheckComplete("arguments", module);
    if (!complete.ok()) {
      report.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, kWholeCheckpoint, path,
                  absl::StrCat("is a ", module.type(),
                               " that cannot be built: ", complete.message()));
    }
  }
  for (const ModuleTree& child : module.children()) {
    WarnAboutIncomplete(child, JoinModulePath(path, child.name()), known, report);
  }
}

}  // namespace

void WarnAboutInconsistencies(const WorkingCheckpoint& checkpoint, Report& report) {
  if (!checkpoint.architecture().has_value()) {
    report.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, kWholeCheckpoint, "",
                "the architecture is not known: only tensors were changed and checked");
    return;
  }
  KeysAndShapes stored;
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.section == "model") stored.emplace_back(tensor.key, tensor.shape);
  }
  const auto inconsistencies = FindInconsistencies(*checkpoint.architecture(), stored);
  if (!inconsistencies.ok()) {
    report.Warn(Warning::KIND_ARCHITECTURE_INCOMPLETE, kWholeCheckpoint, "",
                std::string(inconsistencies.status().message()));
    return;
  }
  for (const Inconsistency& inconsistency : *inconsistencies) {
    report.Warn(KindOf(inconsistency.kind), kWholeCheckpoint, inconsistency.key,
                inconsistency.ToString());
  }
  absl::flat_hash_set<std::string> known;
  for (const Warning& warning : report.warnings()) {
    if (warning.kind() == Warning::KIND_ARCHITECTURE_INCOMPLETE)
      known.insert(warning.path());
  }
  WarnAboutIncomplete(checkpoint.architecture()->root(), "", known, report);
}

}  // namespace modelstore::server::modify
