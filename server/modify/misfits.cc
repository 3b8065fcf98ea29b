#include "server/modify/misfits.h"

#include "proto/contract/architecture_tensors.h"

namespace modelstore::server::modify {
namespace {

constexpr int kWhole = -1;

Warning::Kind KindOf(Misfit::Kind kind) {
  switch (kind) {
    case Misfit::Kind::kMissing:
      return Warning::TENSOR_MISSING;
    case Misfit::Kind::kUnexpected:
      return Warning::TENSOR_WITHOUT_MODULE;
    case Misfit::Kind::kShape:
      break;
  }
  return Warning::SHAPES_DO_NOT_FIT;
}

}  // namespace

void WarnOfMisfits(const WorkingCheckpoint& checkpoint, Report& report) {
  if (!checkpoint.architecture().has_value()) {
    report.Warn(Warning::ARCHITECTURE_INCOMPLETE, kWhole, "",
                "the architecture is not known: only tensors were changed and checked");
    return;
  }
  KeysAndShapes stored;
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.section == "model") stored.emplace_back(tensor.key, tensor.shape);
  }
  const auto misfits = FindMisfits(*checkpoint.architecture(), stored);
  if (!misfits.ok()) {
    report.Warn(Warning::ARCHITECTURE_INCOMPLETE, kWhole, "",
                std::string(misfits.status().message()));
    return;
  }
  for (const Misfit& misfit : *misfits) {
    report.Warn(KindOf(misfit.kind), kWhole, misfit.key, misfit.ToString());
  }
}

}  // namespace modelstore::server::modify
