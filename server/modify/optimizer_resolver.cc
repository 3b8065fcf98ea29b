#include "server/modify/optimizer_resolver.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "proto/contract/names.h"

namespace modelstore::server::modify {
namespace {

using Parameter = OptimizerIndex::Parameter;

// A plain state dict has no roles, so any of its tensors may be trained.
bool MayBeTrained(const storage::records::TensorRecord& record) {
  return record.requires_grad() || record.role() == v1::TENSOR_ROLE_UNSPECIFIED;
}

}  // namespace

absl::Status RefuseNames(absl::string_view section, absl::string_view what) {
  return InvalidField(absl::StrCat("optimizer_param_names[", section, "]"), what);
}

OptimizerResolver::OptimizerResolver(const storage::Read& base,
                                     const v1::Value& optimizer, OptimizerIndex& index)
    : base_(base), optimizer_(optimizer), index_(index) {}

absl::Status OptimizerResolver::Run(const OptimizerIndex::Names& names) {
  ReadModel();
  ReadGroups();
  if (!names.empty()) {
    if (auto s = TakeRequestNames(names); !s.ok()) return s;
  }
  std::string why = ByNames();
  if (!names.empty() && !why.empty()) return RefuseNames(index_.section(), why);
  // Names first: they reduce the candidates for the parameters without names.
  if (why.empty()) why = ByShapes();
  if (!why.empty()) {
    // All or nothing: an index is resolved only if all its parameters are.
    for (Parameter& parameter : index_.parameters_) parameter.origins.clear();
    index_.group_of_.clear();
    index_.why_ = std::move(why);
  }
  return absl::OkStatus();
}

void OptimizerResolver::ReadModel() {
  const auto& manifest = base_.manifest();
  absl::flat_hash_map<std::string, size_t> owners;
  for (int t = 0; t < manifest.tensors_size(); ++t) {
    const auto& record = manifest.tensors(t);
    if (!CanBeTrained(record)) continue;
    auto owner = owners.find(record.tied_to());
    const size_t place = owner == owners.end() ? places_.size() : owner->second;
    // A tied tensor comes after its owner in the manifest.
    if (owner == owners.end()) {
      owners.emplace(TensorNameOf("model", record.key()), place);
      places_.push_back({{}, {record.shape().begin(), record.shape().end()}});
    }
    places_[place].origins.push_back(t);
    places_[place].may_be_trained |= MayBeTrained(record);
    place_of_.emplace(record.key(), place);
  }
}

void OptimizerResolver::ReadGroups() {
  absl::flat_hash_map<absl::string_view, Shape> shapes;
  for (const auto& record : base_.manifest().tensors()) {
    if (record.section() != index_.section()) continue;
    shapes.emplace(record.key(), Shape(record.shape().begin(), record.shape().end()));
  }
  for (const auto& entry : FindEntry(optimizer_, "state")->dict_value().entries()) {
    if (!entry.key().has_int_value()) continue;
    const int64_t id = entry.key().int_value();
    const auto& fields = entry.value().dict_value().entries();
    if (!fields.empty()) with_state_.insert(id);
    for (const auto& field : fields) {
      // All elementwise fields of a parameter have its shape; the first one counts.
      if (!field.value().has_tensor_value() ||
          !IsElementwise(field.key().string_value())) {
        continue;
      }
      auto shape = shapes.find(field.value().tensor_value());
      if (shape != shapes.end()) state_shapes_.emplace(id, shape->second);
    }
  }
  const auto& groups = *ElementsOf(FindEntry(optimizer_, "param_groups"));
  for (int g = 0; g < groups.size(); ++g) {
    const auto& ids = *ElementsOf(FindEntry(groups[g], "params"));
    const auto* names = ElementsOf(FindEntry(groups[g], "param_names"));
    for (int i = 0; i < ids.size(); ++i) {
      Parameter& parameter = index_.parameters_.emplace_back();
      parameter.group = g;
      parameter.id = ids[i].int_value();
      parameter.has_state = with_state_.contains(parameter.id);
      if (names != nullptr) parameter.name = (*names)[i].string_value();
      named_.push_back(names != nullptr);
    }
  }
}

absl::Status OptimizerResolver::TakeRequestNames(const OptimizerIndex::Names& names) {
  if (std::find(named_.begin(), named_.end(), true) != named_.end()) {
    return RefuseNames(index_.section(), "the stored optimizer has names of its own");
  }
  if (names.size() != static_cast<int>(index_.parameters_.size())) {
    return RefuseNames(index_.section(),
                       absl::StrCat("are ", names.size(), ", while the optimizer holds ",
                                    index_.parameters_.size(), " parameter(s)"));
  }
  for (int n = 0; n < names.size(); ++n) {
    Parameter& parameter = index_.parameters_[n];
    parameter.name = names[n];
    named_[n] = true;
    // An empty name says that the parameter is not one of the model.
    if (names[n].empty()) continue;
    const std::string field =
        absl::StrCat("optimizer_param_names[", index_.section(), "].names[", n, "]");
    auto place = place_of_.find(names[n]);
    if (place == place_of_.end()) {
      return InvalidField(field, absl::StrCat("the model has no parameter ", names[n]));
    }
    const Shape* shape = ShapeOfState(parameter.id);
    if (shape == nullptr || *shape == places_[place->second].shape) continue;
    return InvalidField(
        field,
        absl::StrCat(names[n], " is [", absl::StrJoin(places_[place->second].shape, ", "),
                     "], while the state of number ", parameter.id, " is [",
                     absl::StrJoin(*shape, ", "), "]"));
  }
  index_.named_by_request_ = true;
  return absl::OkStatus();
}

void OptimizerResolver::Assign(Parameter& parameter, Place& place) {
  place.taken = true;
  parameter.origins = place.origins;
  for (const int t : place.origins) index_.group_of_[t] = parameter.group;
}

std::string OptimizerResolver::ByNames() {
  for (size_t p = 0; p < named_.size(); ++p) {
    Parameter& parameter = index_.parameters_[p];
    if (!named_[p]) continue;
    auto found = place_of_.find(parameter.name);
    // The name of a parameter outside the model: it has no origins.
    if (found == place_of_.end()) continue;
    if (places_[found->second].taken) {
      return absl::StrCat("it names ", parameter.name, " twice");
    }
    Assign(parameter, places_[found->second]);
  }
  return "";
}

const OptimizerResolver::Shape* OptimizerResolver::ShapeOfState(int64_t id) const {
  auto shape = state_shapes_.find(id);
  return shape == state_shapes_.end() ? nullptr : &shape->second;
}

// Identifies the parameters without names. One with elementwise state is assigned if
// exactly one free parameter of the model has that shape. One without state is assigned
// if it is the last parameter on both sides. The counts on both sides must be equal:
// otherwise a parameter of the optimizer may be one of another module, or one of the
// model may be in no group, and a matching shape proves nothing.
std::string OptimizerResolver::ByShapes() {
  // Free parameters of the model by shape. `left` is the number of free ones.
  std::map<Shape, std::vector<size_t>> free;
  size_t left = 0;
  for (size_t p = 0; p < places_.size(); ++p) {
    if (places_[p].taken || !places_[p].may_be_trained) continue;
    free[places_[p].shape].push_back(p);
    ++left;
  }
  const auto unnamed =
      static_cast<size_t>(std::count(named_.begin(), named_.end(), false));
  if (unnamed > 0 && unnamed != left) {
    return absl::StrCat("it has no `param_names`, and ", unnamed,
                        " parameter(s) without a name, while the model has ", left,
                        " that may be trained");
  }
  // Parameters without names and without a shape.
  std::vector<size_t> open;
  for (size_t p = 0; p < named_.size(); ++p) {
    if (named_[p]) continue;
    Parameter& parameter = index_.parameters_[p];
    const Shape* shape = ShapeOfState(parameter.id);
    if (shape == nullptr) {
      open.push_back(p);
      continue;
    }
    auto places = free.find(*shape);
    const size_t count = places == free.end() ? 0 : places->second.size();
    if (count != 1 || places_[places->second[0]].taken) {
      return absl::StrCat("it has no `param_names`, and number ", parameter.id,
                          ", whose state is [", absl::StrJoin(*shape, ", "),
                          "], may be any of ", count, " parameters of that shape");
    }
    Assign(parameter, places_[places->second[0]]);
    --left;
  }
  if (open.empty()) return "";
  if (open.size() > 1 || left != 1) {
    return absl::StrCat("it has no `param_names`, and number ",
                        index_.parameters_[open[0]].id,
                        " has no state that tells which of ", left, " parameters it is");
  }
  for (Place& place : places_) {
    if (!place.taken && place.may_be_trained) Assign(index_.parameters_[open[0]], place);
  }
  return "";
}

}  // namespace modelstore::server::modify
