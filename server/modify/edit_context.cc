#include "server/modify/edit_context.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"
#include "server/core/resource_names.h"
#include "server/modify/lora_tensor.h"
#include "server/modify/optimizer_resolver.h"

namespace modelstore::server::modify {

absl::StatusOr<WorkingCheckpoint*> Sources::Open(absl::string_view name) {
  auto known = opened_.find(std::string(name));
  if (known != opened_.end()) return known->second.get();
  auto ref = ParseCheckpointRef("name", name);
  if (!ref.ok()) return ref.status();
  auto read = context_->store->reads().Open(ref->model_id, ref->version);
  if (!read.ok()) return read.status();
  if ((*read)->model().digest_algorithm() != base_->model().digest_algorithm()) {
    return absl::InvalidArgumentError(absl::StrCat(
        NameOf(**read), " has another digest algorithm: chunks are not shared"));
  }
  Reservation reservation(context_->memory);
  // Reserves an estimate before the table is made, and the exact size afterwards.
  const auto table_bytes =
      (*read)->manifest().tensors_size() * static_cast<int64_t>(sizeof(WorkingTensor));
  auto s = reservation.Grow(table_bytes);
  if (!s.ok()) return s;
  auto checkpoint = WorkingCheckpoint::Of(*std::move(read));
  if (!checkpoint.ok()) return checkpoint.status();
  if (s = reservation.Grow(checkpoint->MemoryBytes() - table_bytes); !s.ok()) return s;
  reserved_.push_back(std::move(reservation));
  auto& opened = opened_[std::string(name)];
  opened = std::make_unique<WorkingCheckpoint>(*std::move(checkpoint));
  return opened.get();
}

std::string NameOf(const storage::Read& read) {
  return CheckpointNameOf(read.model().model_id(), read.checkpoint().version());
}

absl::Status EditResources::Reserve(int64_t bytes) {
  auto s = reservation_.Grow(bytes);
  if (s.ok()) {
    reserved_bytes_ += bytes;
    return s;
  }
  return OutOfMemory(s, bytes);
}

absl::StatusOr<Reservation> EditResources::Borrow(int64_t bytes) const {
  Reservation reservation(memory_);
  if (auto s = reservation.Grow(bytes); !s.ok()) return OutOfMemory(s, bytes);
  return reservation;
}

absl::Status EditResources::OutOfMemory(const absl::Status& status, int64_t bytes) const {
  return Annotate(status, absl::StrCat("the modification needs ", bytes,
                                       " bytes of memory beside the ", reserved_bytes_,
                                       " that it has"));
}

absl::Status EditResources::ReserveGrowth() {
  const int64_t bytes = checkpoint_.MemoryBytes();
  if (bytes <= checkpoint_bytes_) return absl::OkStatus();
  auto s = Reserve(bytes - checkpoint_bytes_);
  if (s.ok()) checkpoint_bytes_ = bytes;
  return s;
}

absl::Status EditResources::TakeElements(int64_t elements) {
  if (elements <= kMaxMadeElements - made_elements_) {
    made_elements_ += elements;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "makes ", elements, " new elements, beside ", made_elements_,
      " of the edits before; all edits of a call make at most ", kMaxMadeElements));
}

absl::StatusOr<OptimizerIndexes> EditResources::Optimizers() {
  if (!optimizers_.has_value()) {
    auto read = ReadOptimizers();
    if (!read.ok()) return read.status();
    optimizers_ = *std::move(read);
  }
  OptimizerIndexes all;
  for (const OptimizerIndex& index : *optimizers_) all.push_back(&index);
  return all;
}

absl::StatusOr<std::vector<OptimizerIndex>> EditResources::ReadOptimizers() const {
  const auto& manifest = checkpoint_.base()->manifest();
  // Ids of the optimizer sections, with the memory that decoding them takes: 0 for one
  // that has only tensors. Ordered, because positions of optimizers follow from it.
  std::map<std::string, int64_t> sections;
  for (const auto& record : manifest.sections()) {
    if (IsOptimizerSection(record.name())) {
      sections.emplace(record.name(), DecodedBytes(record));
    }
  }
  for (const auto& tensor : manifest.tensors()) {
    if (IsOptimizerSection(tensor.section())) sections.emplace(tensor.section(), 0);
  }
  for (const auto& [section, names] : request_.optimizer_param_names()) {
    if (!sections.contains(section)) {
      return RefuseNames(section, "the checkpoint has no optimizer in such a section");
    }
  }
  if (sections.size() > kMaxOptimizers) {
    return InvalidField("name", absl::StrCat(NameOf(*checkpoint_.base()), " has ",
                                             sections.size(), " optimizers, at most ",
                                             kMaxOptimizers, " can be followed"));
  }
  const OptimizerIndex::Names none;
  std::vector<OptimizerIndex> optimizers;
  for (const auto& [section, bytes] : sections) {
    if (auto s = CheckCancelled(); !s.ok()) return s;
    const auto borrowed = Borrow(bytes);
    if (!borrowed.ok()) return borrowed.status();
    const auto names = request_.optimizer_param_names().find(section);
    const bool named = names != request_.optimizer_param_names().end();
    auto index =
        OptimizerIndex::Of(checkpoint_, section, static_cast<int>(optimizers.size()),
                           named ? names->second.names() : none);
    if (!index.ok()) return index.status();
    optimizers.push_back(*std::move(index));
  }
  return optimizers;
}

const std::shared_ptr<LoraFactors>& EditResources::lora_factors() {
  if (lora_factors_ == nullptr) lora_factors_ = std::make_shared<LoraFactors>();
  return lora_factors_;
}

std::string EditContext::Field(absl::string_view field) const {
  return absl::StrCat("edits[", index, "].", kind, field.empty() ? "" : ".", field);
}

absl::Status EditContext::Invalid(absl::string_view field,
                                  absl::string_view message) const {
  return InvalidField(Field(field), message);
}

absl::Status EditContext::At(absl::string_view field, const absl::Status& status) const {
  if (status.ok()) return status;
  const std::string path = Field(field);
  if (absl::StartsWith(status.message(), path)) return status;
  absl::Status placed = Annotate(status, path);
  // Keeps the reason of another kind of error, such as NOT_FOUND for a module.
  const bool invalid = absl::IsInvalidArgument(placed);
  InvalidField(path, status.message())
      .ForEachPayload([&](absl::string_view type, const absl::Cord& detail) {
        if (invalid || absl::EndsWith(type, ".BadRequest")) {
          placed.SetPayload(type, detail);
        }
      });
  return placed;
}

absl::Status EditContext::Missing(absl::string_view field, absl::string_view type,
                                  absl::string_view name) const {
  return At(field, DoesNotExist(type, name));
}

absl::Status EditContext::NameInUse(absl::string_view field, absl::string_view type,
                                    absl::string_view name) const {
  return At(field, AlreadyExists(type, name));
}

absl::Status ReplaceBytes(EditContext& context, WorkingTensor& tensor, SourcePtr source,
                          DType dtype, std::vector<int64_t> shape) {
  if (source->depth() > kMaxSourceDepth) {
    return context.Invalid(
        "", absl::StrCat(tensor.key, " would be computed in ", source->depth(),
                         " steps, of at most ", kMaxSourceDepth,
                         ": make a version in between"));
  }
  if (source->working_bytes() > kMaxWorkingBytes) {
    return context.Invalid(
        "", absl::StrCat("computing ", tensor.key, " would take ",
                         source->working_bytes(), " bytes at once, of at most ",
                         kMaxWorkingBytes, ": make a version in between"));
  }
  // After Untie(), TiedTo() below returns only the tensor itself.
  if (context.untie) {
    const size_t others = context.checkpoint.Untie(tensor);
    if (others > 0) {
      context.Warn(Warning::KIND_UNTIED, tensor.key,
                   absl::StrCat("is tied no longer to ", others,
                                " other tensor(s), which keep their bytes"));
    }
  }
  for (WorkingTensor* member : context.checkpoint.TiedTo(tensor)) {
    member->source = source;
    member->dtype = dtype;
    member->shape = shape;
    member->changed_by = context.index;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
