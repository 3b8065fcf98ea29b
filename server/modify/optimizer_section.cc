#include "server/modify/optimizer_section.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/repeat_source.h"
#include "server/modify/value_references.h"

namespace modelstore::server::modify {
namespace {

// Adds the keys of all tensors that a value refers to. Takes a copy because
// ChangeReferences() is the only walk over a value; here it changes nothing.
void AddKeys(v1::Value value, absl::flat_hash_set<std::string>& keys) {
  ChangeReferences(&value, [&](const std::string& key) {
    keys.insert(key);
    return std::optional(key);
  });
}

v1::Value Text(absl::string_view text) {
  v1::Value value;
  value.set_string_value(std::string(text));
  return value;
}

// The elements of a list or tuple, without changing its kind.
v1::ListValue& MutableList(v1::Value& value) {
  return value.has_tuple_value() ? *value.mutable_tuple_value()
                                 : *value.mutable_list_value();
}

}  // namespace

absl::StatusOr<OptimizerSection> OptimizerSection::Of(WorkingCheckpoint& checkpoint,
                                                      absl::string_view section) {
  auto stored = checkpoint.Section(section);
  if (!stored.ok()) return stored.status();
  if (*stored == nullptr) {
    return absl::FailedPreconditionError("it has no values, only tensors");
  }
  if (auto s = CheckOptimizerLayout((*stored)->value()); !s.ok()) return s;
  OptimizerSection optimizer(checkpoint, section);
  optimizer.Index();
  return optimizer;
}

v1::Value& OptimizerSection::value() const {
  // Decoded by Of().
  return *(*checkpoint_->Section(name_))->mutable_value();
}

v1::Value& OptimizerSection::States() const {
  return *value().mutable_dict_value()->mutable_entries(states_)->mutable_value();
}

v1::Value& OptimizerSection::Groups() const {
  return *value().mutable_dict_value()->mutable_entries(groups_)->mutable_value();
}

void OptimizerSection::Index() {
  const auto& all = value().dict_value().entries();
  for (int i = 0; i < all.size(); ++i) {
    if (all[i].key().string_value() == "state") states_ = i;
    if (all[i].key().string_value() == "param_groups") groups_ = i;
  }
  places_.clear();
  const auto& entries = States().dict_value().entries();
  for (int i = 0; i < entries.size(); ++i) {
    if (entries[i].key().has_int_value())
      places_.emplace(entries[i].key().int_value(), i);
  }
}

int OptimizerSection::group_count() const { return ElementsOf(&Groups())->size(); }

v1::Value& OptimizerSection::Group(int g) {
  return *MutableList(Groups()).mutable_values(g);
}

const v1::Value* OptimizerSection::StateOf(int64_t id) const {
  auto place = places_.find(id);
  if (place == places_.end()) return nullptr;
  return &States().dict_value().entries(place->second).value();
}

void OptimizerSection::SetParameters(int g, const std::vector<int64_t>& ids,
                                     const std::vector<std::string>& names,
                                     bool with_names) {
  v1::Value& group = Group(g);
  v1::ListValue new_ids, new_names;
  for (const int64_t id : ids) new_ids.add_values()->set_int_value(id);
  for (const std::string& name : names) *new_names.add_values() = Text(name);
  MutableList(*FindEntry(group, "params")) = std::move(new_ids);
  v1::Value* list = FindEntry(group, "param_names");
  if (list == nullptr && with_names) {
    auto* entry = group.mutable_dict_value()->add_entries();
    *entry->mutable_key() = Text("param_names");
    list = entry->mutable_value();
  }
  if (list != nullptr) MutableList(*list) = std::move(new_names);
}

void OptimizerSection::RenameParameters(
    absl::FunctionRef<std::string(const std::string& name)> new_name) {
  for (int g = 0; g < group_count(); ++g) {
    v1::Value* names = FindEntry(Group(g), "param_names");
    if (names == nullptr) continue;
    for (v1::Value& name : *MutableList(*names).mutable_values()) {
      name.set_string_value(new_name(name.string_value()));
    }
  }
}

absl::Status OptimizerSection::Forget(absl::FunctionRef<bool(int64_t id)> gone) {
  absl::flat_hash_set<std::string> keys, kept_keys;
  auto& entries = *States().mutable_dict_value()->mutable_entries();
  int kept = 0;
  for (int i = 0; i < entries.size(); ++i) {
    if (entries[i].key().has_int_value() && gone(entries[i].key().int_value())) {
      AddKeys(entries[i].value(), keys);
      continue;
    }
    AddKeys(entries[i].value(), kept_keys);
    if (kept != i) entries.SwapElements(kept, i);
    ++kept;
  }
  while (entries.size() > kept) entries.RemoveLast();
  const auto erased = checkpoint_->EraseIf([&](const WorkingTensor& tensor) {
    return tensor.section == name_ && keys.contains(tensor.key) &&
           !kept_keys.contains(tensor.key);
  });
  // EraseIf() also removes other references to these tensors, so positions may have
  // changed.
  Index();
  return erased.status();
}

absl::Status OptimizerSection::BeginAdagrad(const std::vector<Beginning>& parameters) {
  std::vector<WorkingTensor> tensors;
  for (const Beginning& parameter : parameters) {
    // The fields that PyTorch's Adagrad creates in its constructor: `step`, a float32
    // scalar, and `sum`, of the parameter's type and shape.
    WorkingTensor step, total;
    step.section = total.section = name_;
    step.key = absl::StrCat("state/", parameter.id, "/step");
    total.key = absl::StrCat("state/", parameter.id, "/sum");
    total.dtype = parameter.dtype;
    total.shape = parameter.shape;
    auto elements = ElementCount(total.shape);
    if (!elements.ok()) return elements.status();
    auto zero = RepeatSource(step.dtype, 0, 1);
    if (!zero.ok()) return zero.status();
    auto filled = RepeatSource(total.dtype, parameter.sum, *elements);
    if (!filled.ok()) return filled.status();
    step.source = *std::move(zero);
    total.source = *std::move(filled);
    auto* entry = States().mutable_dict_value()->add_entries();
    entry->mutable_key()->set_int_value(parameter.id);
    for (const WorkingTensor* field : {&step, &total}) {
      auto* named = entry->mutable_value()->mutable_dict_value()->add_entries();
      *named->mutable_key() = Text(field == &step ? "step" : "sum");
      named->mutable_value()->set_tensor_value(field->key);
    }
    tensors.push_back(std::move(step));
    tensors.push_back(std::move(total));
  }
  Index();
  if (tensors.empty()) return absl::OkStatus();
  return checkpoint_->Insert(checkpoint_->tensors().size(), std::move(tensors));
}

}  // namespace modelstore::server::modify
