#include "server/operations/compare_plan.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/errors.h"
#include "server/core/convert.h"
#include "server/core/resource_names.h"
#include "server/core/tensor_selector.h"

namespace modelstore::server {
namespace {

using Difference = v1::CompareCheckpointsResponse::TensorDifference;
using Names = absl::flat_hash_map<std::string, int>;

Names NamesOf(const storage::Read& read) {
  Names names;
  for (int i = 0; i < read.manifest().tensors_size(); ++i) {
    names.emplace(FullTensorName(read.manifest().tensors(i)), i);
  }
  return names;
}

// Returns the index of the tensor that holds the bytes of tensor `index`: itself, or the
// one that it is tied to. DATA_LOSS if that does not exist.
absl::StatusOr<int> SourceOf(const storage::Read& read, const Names& names, int index) {
  const auto& tensor = read.manifest().tensors(index);
  if (tensor.tied_to().empty()) return index;
  const auto target = names.find(tensor.tied_to());
  if (target != names.end()) return target->second;
  return TensorDataLoss(
      FullCheckpointName(read), FullTensorName(tensor),
      absl::StrCat("it is tied to ", tensor.tied_to(), ", which no tensor is"));
}

// False if the section has neither value nor metadata. Such a section may be stored or
// left out, which must compare equal. True if it cannot be decoded: its bytes are then
// compared.
bool HasValues(const records::SectionRecord& record, absl::string_view checkpoint) {
  auto section = SectionFromRecord(record, checkpoint);
  if (!section.ok()) return true;
  section->clear_name();
  section->clear_tensor_count();
  section->clear_logical_bytes();
  return section->ByteSizeLong() > 0;
}

// Returns the encoded values of the selected sections by name. The encoding is canonical,
// so equal values have equal bytes.
absl::flat_hash_map<std::string, std::string> ValuesOf(const storage::Read& read,
                                                       const TensorSelector& selector) {
  absl::flat_hash_map<std::string, std::string> values;
  const std::string checkpoint = FullCheckpointName(read);
  for (const auto& section : read.manifest().sections()) {
    if (selector.TakesSection(section.name()) && HasValues(section, checkpoint)) {
      values[section.name()] = section.value();
    }
  }
  return values;
}

}  // namespace

ByDigest CompareChunk(const storage::ChunkCursor& first,
                      const storage::ChunkCursor& other) {
  if (first.chunk_begin() != other.chunk_begin() ||
      first.chunk_end() != other.chunk_end()) {
    return ByDigest::kUnknown;
  }
  return first.digest() == other.digest() ? ByDigest::kEqual : ByDigest::kDifferent;
}

ByDigest CompareDigests(storage::ChunkCursor first, storage::ChunkCursor other) {
  // Advances both to the nearer end of a chunk, so that every overlapping pair of chunks
  // is compared once. One difference decides; a pair that is cut differently does not.
  ByDigest all = ByDigest::kEqual;
  while (!first.done()) {
    const ByDigest chunk = CompareChunk(first, other);
    if (chunk == ByDigest::kDifferent) return chunk;
    if (chunk == ByDigest::kUnknown) all = chunk;
    const int64_t end = std::min(first.chunk_end(), other.chunk_end());
    first.Seek(end);
    other.Seek(end);
  }
  return all;
}

absl::StatusOr<ComparePlan> ComparePlan::Make(std::shared_ptr<storage::Read> first,
                                              std::shared_ptr<storage::Read> other,
                                              const v1::TensorSelection& selection) {
  if (auto s = CheckSelectionSize(selection); !s.ok()) return s;
  auto selector = TensorSelector::Make(selection);
  if (!selector.ok()) return selector.status();
  if (auto s = selector->CheckSections(*first, other.get()); !s.ok()) return s;
  ComparePlan plan;
  plan.first_ = std::move(first);
  plan.other_ = std::move(other);
  const Names names = NamesOf(*plan.first_), other_names = NamesOf(*plan.other_);
  const auto& table = plan.first_->manifest().tensors();
  for (int i = 0; i < table.size(); ++i) {
    const std::string name = FullTensorName(table[i]);
    if (!selector->Takes(table[i], name)) continue;
    ComparedTensor tensor;
    tensor.first = i;
    const auto match = other_names.find(name);
    if (match == other_names.end()) {
      tensor.kind = Difference::KIND_REMOVED;
      plan.tensors_.push_back(tensor);
      continue;
    }
    tensor.other = match->second;
    auto source = SourceOf(*plan.first_, names, tensor.first);
    if (!source.ok()) return source.status();
    tensor.first_source = *source;
    source = SourceOf(*plan.other_, other_names, tensor.other);
    if (!source.ok()) return source.status();
    tensor.other_source = *source;
    if (auto s = plan.Decide(&tensor); !s.ok()) return s;
    plan.tensors_.push_back(tensor);
  }
  const auto& other_table = plan.other_->manifest().tensors();
  for (int i = 0; i < other_table.size(); ++i) {
    const std::string name = FullTensorName(other_table[i]);
    if (!selector->Takes(other_table[i], name) || names.contains(name)) continue;
    ComparedTensor tensor;
    tensor.other = i;
    tensor.kind = Difference::KIND_ADDED;
    plan.tensors_.push_back(tensor);
  }
  if (auto s = selector->CheckMatches(*plan.first_, plan.other_.get()); !s.ok()) return s;
  return plan;
}

absl::Status ComparePlan::Decide(ComparedTensor* tensor) const {
  const auto& a = first_->manifest().tensors(tensor->first);
  const auto& b = other_->manifest().tensors(tensor->other);
  if (!std::equal(a.shape().begin(), a.shape().end(), b.shape().begin(),
                  b.shape().end())) {
    tensor->kind = Difference::KIND_SHAPE;
    return absl::OkStatus();
  }
  if (a.dtype() != b.dtype()) {
    tensor->kind = Difference::KIND_DTYPE;
    return absl::OkStatus();
  }
  auto first = storage::ChunkCursor::Open(first_, tensor->first_source);
  if (!first.ok()) return first.status();
  auto other = storage::ChunkCursor::Open(other_, tensor->other_source);
  if (!other.ok()) return other.status();
  const ByDigest verdict =
      DigestsComparable() ? CompareDigests(*first, *other) : ByDigest::kUnknown;
  if (verdict == ByDigest::kDifferent) tensor->kind = Difference::KIND_CONTENT;
  tensor->undecided = verdict == ByDigest::kUnknown;
  return absl::OkStatus();
}

bool ComparePlan::DigestsComparable() const {
  return first_->model().digest_algorithm() == other_->model().digest_algorithm();
}

bool ComparePlan::IsRead(const ComparedTensor& tensor, bool with_norms) {
  return tensor.undecided || (with_norms && (tensor.kind == Difference::KIND_CONTENT ||
                                             tensor.kind == Difference::KIND_DTYPE));
}

int64_t ComparePlan::SizeBytes(const ComparedTensor& tensor) const {
  return StoredTensorBytes(first_->manifest().tensors(tensor.first));
}

std::vector<std::string> ComparePlan::DifferentSections(
    const v1::TensorSelection& selection) const {
  // Make() has compiled the same selection, so this does not fail.
  auto selector = TensorSelector::Make(selection);
  if (!selector.ok()) return {};
  const auto values = ValuesOf(*first_, *selector), others = ValuesOf(*other_, *selector);
  std::set<std::string> different;
  for (const auto& [name, value] : values) {
    const auto match = others.find(name);
    if (match == others.end() || match->second != value) different.insert(name);
  }
  for (const auto& [name, value] : others) {
    if (!values.contains(name)) different.insert(name);
  }
  return {different.begin(), different.end()};
}

}  // namespace modelstore::server
