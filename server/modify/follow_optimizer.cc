#include "server/modify/follow_optimizer.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/contract/architecture.h"
#include "proto/contract/errors.h"
#include "server/modify/optimizer_index.h"
#include "server/modify/repeat_source.h"

namespace modelstore::server::modify {
namespace {

using Policy = v1::ModifyCheckpointRequest;

// State that begins as zeros, so that new rows of it do; `sum` is Adagrad's.
bool BeginsAsZeros(absl::string_view field) {
  return field == "momentum_buffer" || field == "exp_avg" || field == "exp_avg_sq" ||
         field == "max_exp_avg_sq" || field == "square_avg" || field == "grad_avg" ||
         field == "acc_delta" || field == "exp_inf";
}

double NumberOf(const v1::Value* value) {
  if (value == nullptr) return 0;
  return value->has_double_value() ? value->double_value()
                                   : static_cast<double>(value->int_value());
}

void AddKeys(const v1::Value& value, absl::flat_hash_set<std::string>& keys) {
  if (value.has_tensor_value()) keys.insert(value.tensor_value());
  for (const auto& entry : value.dict_value().entries()) AddKeys(entry.value(), keys);
  for (const v1::Value& element : value.list_value().values()) AddKeys(element, keys);
  for (const v1::Value& element : value.tuple_value().values()) AddKeys(element, keys);
}

v1::Value Text(const std::string& text) {
  v1::Value value;
  value.set_string_value(text);
  return value;
}

// A parameter of a group, as it is to be.
struct Member {
  int64_t id = 0;
  std::string key;
  std::optional<size_t> tensor;  // position in the table
  bool had_state = false;
  // New, so that it begins without.
  bool added = false;
  ParameterFate::OptimizerFate fate = ParameterFate::NO_STATE;
};

class Follower {
 public:
  Follower(Policy::OptimizerPolicy policy, const OptimizerIndex& index,
           WorkingCheckpoint& checkpoint, Report& report)
      : policy_(policy), index_(index), checkpoint_(checkpoint), report_(report) {}

  absl::Status Run() {
    for (size_t t = 0; t < checkpoint_.tensors().size(); ++t) {
      const WorkingTensor& tensor = checkpoint_.tensors()[t];
      if (tensor.section != "model") continue;
      if (tensor.origin.has_value()) place_of_[*tensor.origin] = t;
    }
    Place();
    if (policy_ == Policy::DROP || !checkpoint_.HasSection(kOptimizer)) return Drop();
    Join();
    for (size_t g = 0; g < groups_.size(); ++g) Judge(g);
    if (auto s = Write(); !s.ok()) return s;
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (const Member& member : groups_[g]) {
        report_.SetOptimizer(member.key, {member.fate, static_cast<int>(g)});
      }
    }
    return absl::OkStatus();
  }

 private:
  const WorkingTensor& TensorOf(const Member& member) const {
    return checkpoint_.tensors()[*member.tensor];
  }
  bool IsThere(const std::string& key) {
    return checkpoint_.Find("model", key) != nullptr;
  }

  // Where the parameters of the base are now; of tied ones, the first that is there.
  void Place() {
    groups_.resize(index_.group_count());
    for (const OptimizerIndex::Parameter& parameter : index_.parameters()) {
      Member member;
      member.id = parameter.id;
      member.had_state = parameter.has_state;
      next_id_ = std::max(next_id_, parameter.id + 1);
      for (const int origin : parameter.origins) {
        auto place = place_of_.find(origin);
        if (place == place_of_.end()) continue;
        if (!member.tensor.has_value() || place->second < *member.tensor) {
          member.tensor = place->second;
        }
      }
      if (member.tensor.has_value()) {
        member.key = TensorOf(member).key;
        for (const WorkingTensor* tied :
             checkpoint_.TiedTo(checkpoint_.tensors()[*member.tensor])) {
          held_.insert(tied->key);
        }
        groups_[parameter.group].push_back(std::move(member));
        continue;
      }
      if (parameter.origins.empty()) continue;
      member.key = checkpoint_.base()->manifest().tensors(parameter.origins[0]).key();
      dropped_.insert(member.id);
      if (member.had_state) gone_.push_back(std::move(member));
    }
  }

  absl::Status Drop() {
    checkpoint_.DropSection(std::string(kOptimizer));
    auto tell = [&](const Member& member) {
      if (!member.had_state) return;
      report_.SetOptimizer(member.key, {ParameterFate::STATE_DROPPED, std::nullopt});
    };
    for (const auto& group : groups_) {
      for (const Member& member : group) tell(member);
    }
    for (const Member& member : gone_) tell(member);
    return absl::OkStatus();
  }

  int GroupOfNew(const WorkingTensor& tensor) const {
    if (tensor.optimizer_group.has_value()) return *tensor.optimizer_group;
    const std::vector<int> near = index_.GroupsNear(tensor.key, checkpoint_);
    return near.empty() ? 0 : near[0];
  }

  // Puts new parameters behind the last one of their group that precedes them.
  void Join() {
    for (const Member& member : gone_) {
      // A parameter of that name that begins anew tells of it itself.
      if (IsThere(member.key)) continue;
      report_.SetOptimizer(member.key, {ParameterFate::STATE_DROPPED, std::nullopt});
    }
    if (groups_.empty()) return;
    for (size_t t = 0; t < checkpoint_.tensors().size(); ++t) {
      WorkingTensor& tensor = checkpoint_.tensors()[t];
      if (tensor.section != "model" || tensor.role != v1::PARAMETER ||
          tensor.origin.has_value() || !tensor.requires_grad ||
          held_.contains(tensor.key)) {
        continue;
      }
      for (const WorkingTensor* tied : checkpoint_.TiedTo(tensor)) held_.insert(tied->key);
      Member member;
      member.id = next_id_++;
      member.key = tensor.key;
      member.tensor = t;
      member.added = true;
      member.had_state = std::any_of(gone_.begin(), gone_.end(), [&](const Member& old) {
        return old.key == tensor.key;
      });
      std::vector<Member>& group = groups_[GroupOfNew(tensor)];
      auto before = group.begin();
      for (auto it = group.begin(); it != group.end(); ++it) {
        if (*it->tensor < t) before = it + 1;
      }
      group.insert(before, std::move(member));
    }
  }

  bool IsAsItWas(const Member& member) const {
    if (member.added) return false;
    const ParameterFate::Fate fate = FateOf(TensorOf(member), checkpoint_);
    return fate == ParameterFate::KEPT || fate == ParameterFate::RENAMED;
  }

  // What becomes of the state of each.
  void Judge(size_t g) {
    std::vector<Member>& group = groups_[g];
    const v1::Value* options = GroupValue(g);
    if (FindEntry(*options, "history_size") != nullptr) {
      const auto* ids = ElementsOf(FindEntry(*options, "params"));
      bool same = policy_ != Policy::RESET && ids != nullptr &&
                  ids->size() == static_cast<int>(group.size());
      for (size_t m = 0; same && m < group.size(); ++m) {
        same = IsAsItWas(group[m]) && (*ids)[static_cast<int>(m)].int_value() == group[m].id;
      }
      const bool had = std::any_of(group.begin(), group.end(),
                                   [](const Member& member) { return member.had_state; });
      for (Member& member : group) {
        if (!had) continue;
        member.fate = same ? ParameterFate::STATE_KEPT : ParameterFate::STATE_RESET;
      }
      return;
    }
    for (Member& member : group) {
      if (!member.had_state) continue;
      if (policy_ == Policy::RESET || member.added) {
        member.fate = ParameterFate::STATE_RESET;
      } else if (IsAsItWas(member)) {
        member.fate = ParameterFate::STATE_KEPT;
      } else {
        member.fate = CanSlice(member) ? ParameterFate::STATE_SLICED
                                       : ParameterFate::STATE_RESET;
      }
    }
  }

  v1::Value* GroupValue(size_t g) {
    v1::Value* groups = FindEntry(*value_(), "param_groups");
    auto* list = groups->has_list_value() ? groups->mutable_list_value()
                                          : groups->mutable_tuple_value();
    return list->mutable_values(static_cast<int>(g));
  }
  v1::Value* value_() {
    // Was read before, or this would not run.
    return (*checkpoint_.Section(std::string(kOptimizer)))->mutable_value();
  }
  v1::Value* StateOf(int64_t id) {
    v1::Value* state = FindEntry(*value_(), "state");
    for (auto& entry : *state->mutable_dict_value()->mutable_entries()) {
      if (entry.key().int_value() == id) return entry.mutable_value();
    }
    return nullptr;
  }
  std::vector<int64_t> OldShape(const Member& member) const {
    const auto& shape =
        checkpoint_.base()->manifest().tensors(*TensorOf(member).origin).shape();
    return {shape.begin(), shape.end()};
  }

  bool CanSlice(const Member& member) {
    const WorkingTensor& tensor = TensorOf(member);
    const v1::Value* state = StateOf(member.id);
    if (state == nullptr || !tensor.kept_rows.has_value() ||
        tensor.kept_rows->of != tensor.source) {
      return false;
    }
    for (const auto& entry : state->dict_value().entries()) {
      if (!entry.value().has_tensor_value()) continue;
      const WorkingTensor* field =
          checkpoint_.Find(kOptimizer, entry.value().tensor_value());
      if (field == nullptr) return false;
      if (field->shape.empty()) continue;
      const std::string& name = entry.key().string_value();
      if (field->shape != OldShape(member) || (name != "sum" && !BeginsAsZeros(name))) {
        return false;
      }
    }
    return true;
  }

  absl::Status Slice(const Member& member, double sum) {
    const WorkingTensor parameter = TensorOf(member);
    for (const auto& entry : StateOf(member.id)->dict_value().entries()) {
      if (!entry.value().has_tensor_value()) continue;
      WorkingTensor* field = checkpoint_.Find(kOptimizer, entry.value().tensor_value());
      if (field->shape.empty()) continue;
      const double fill = entry.key().string_value() == "sum" ? sum : 0;
      int64_t row_elements = 1;
      for (size_t d = 1; d < field->shape.size(); ++d) row_elements *= field->shape[d];
      const int64_t row_bytes = row_elements * ElementSize(field->dtype);
      const auto& rows = parameter.kept_rows->rows;
      std::vector<SourcePtr> parts;
      for (size_t begin = 0, end; begin < rows.size(); begin = end) {
        const int64_t first = rows[begin];
        end = begin + 1;
        while (end < rows.size() &&
               rows[end] == (first < 0 ? -1 : first + static_cast<int64_t>(end - begin))) {
          ++end;
        }
        const auto count = static_cast<int64_t>(end - begin);
        if (first >= 0) {
          parts.push_back(RangeSource(field->source, first * row_bytes,
                                      (first + count) * row_bytes));
          continue;
        }
        auto fresh = RepeatSource(field->dtype, fill, count * row_elements);
        if (!fresh.ok()) return fresh.status();
        parts.push_back(*std::move(fresh));
      }
      field->source = parts.size() == 1 ? parts[0] : ConcatSource(std::move(parts));
      field->shape = parameter.shape;
    }
    return absl::OkStatus();
  }

  absl::Status Write() {
    absl::flat_hash_set<int64_t> begin_anew = dropped_;
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (const Member& member : groups_[g]) {
        if (member.fate == ParameterFate::STATE_RESET) begin_anew.insert(member.id);
        if (member.fate != ParameterFate::STATE_SLICED) continue;
        const v1::Value* sum = FindEntry(*GroupValue(g), "initial_accumulator_value");
        if (auto s = Slice(member, NumberOf(sum)); !s.ok()) return s;
      }
      WriteGroup(g);
    }
    if (auto s = Forget(begin_anew); !s.ok()) return s;
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (auto s = BeginAdagrad(g); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  void WriteGroup(size_t g) {
    v1::Value* group = GroupValue(g);
    v1::Value* names = FindEntry(*group, "param_names");
    auto* ids = FindEntry(*group, "params");
    v1::ListValue new_ids, new_names;
    for (const Member& member : groups_[g]) {
      new_ids.add_values()->set_int_value(member.id);
      *new_names.add_values() = Text(member.key);
    }
    *ids->mutable_list_value() = std::move(new_ids);
    if (names != nullptr) *names->mutable_list_value() = std::move(new_names);
  }

  // Removes the state of these numbers, and its tensors.
  absl::Status Forget(const absl::flat_hash_set<int64_t>& numbers) {
    absl::flat_hash_set<std::string> keys;
    auto& entries = *FindEntry(*value_(), "state")->mutable_dict_value()->mutable_entries();
    int kept = 0;
    for (int i = 0; i < entries.size(); ++i) {
      if (numbers.contains(entries[i].key().int_value())) {
        AddKeys(entries[i].value(), keys);
        continue;
      }
      if (kept != i) entries.SwapElements(kept, i);
      ++kept;
    }
    while (entries.size() > kept) entries.RemoveLast();
    if (keys.empty()) return absl::OkStatus();
    return checkpoint_
        .EraseIf([&](const WorkingTensor& tensor) {
          return tensor.section == kOptimizer && keys.contains(tensor.key);
        })
        .status();
  }

  // Adagrad makes its state before the first step, and a loaded one that lacks it
  // cannot go on.
  absl::Status BeginAdagrad(size_t g) {
    const v1::Value* initial = FindEntry(*GroupValue(g), "initial_accumulator_value");
    if (initial == nullptr) return absl::OkStatus();
    const double sum = NumberOf(initial);
    for (const Member& member : groups_[g]) {
      if (!member.added && member.fate != ParameterFate::STATE_RESET) continue;
      const WorkingTensor* parameter = checkpoint_.Find("model", member.key);
      WorkingTensor step, total;
      step.section = total.section = std::string(kOptimizer);
      step.key = absl::StrCat("state/", member.id, "/step");
      total.key = absl::StrCat("state/", member.id, "/sum");
      total.dtype = parameter->dtype;
      total.shape = parameter->shape;
      int64_t elements = 1;
      for (const int64_t size : total.shape) elements *= size;
      auto zero = RepeatSource(step.dtype, 0, 1);
      if (!zero.ok()) return zero.status();
      auto filled = RepeatSource(total.dtype, sum, elements);
      if (!filled.ok()) return filled.status();
      step.source = *std::move(zero);
      total.source = *std::move(filled);
      auto* entry = FindEntry(*value_(), "state")->mutable_dict_value()->add_entries();
      entry->mutable_key()->set_int_value(member.id);
      for (const WorkingTensor* field : {&step, &total}) {
        auto* named = entry->mutable_value()->mutable_dict_value()->add_entries();
        *named->mutable_key() = Text(field == &step ? "step" : "sum");
        named->mutable_value()->set_tensor_value(field->key);
      }
      auto s = checkpoint_.Insert(checkpoint_.tensors().size(), {step, total});
      if (!s.ok()) return s;
    }
    return absl::OkStatus();
  }

  const Policy::OptimizerPolicy policy_;
  const OptimizerIndex& index_;
  WorkingCheckpoint& checkpoint_;
  Report& report_;
  // By origin, where a tensor of `model` is now.
  absl::flat_hash_map<int, size_t> place_of_;
  std::vector<std::vector<Member>> groups_;
  // Had a state, and are gone.
  std::vector<Member> gone_;
  absl::flat_hash_set<int64_t> dropped_;
  // Keys of parameters, and of what is tied to them, that are in a group.
  absl::flat_hash_set<std::string> held_;
  int64_t next_id_ = 0;
};

// Nothing about parameters is another than it was, so that nothing has to follow.
bool ParametersAreAsTheyWere(const WorkingCheckpoint& checkpoint) {
  int count = 0;
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.section != "model" || tensor.role == v1::BUFFER) continue;
    if (FateOf(tensor, checkpoint) != ParameterFate::KEPT) return false;
    ++count;
  }
  for (const auto& record : checkpoint.base()->manifest().tensors()) {
    if (record.section() == "model" && record.role() != v1::BUFFER) --count;
  }
  return count == 0;
}

}  // namespace

absl::Status FollowOptimizer(Policy::OptimizerPolicy policy,
                             WorkingCheckpoint& checkpoint, Report& report) {
  auto index = OptimizerIndex::Of(checkpoint);
  if (!index.ok()) return index.status();
  if (!index->resolved() && policy != Policy::DROP &&
      checkpoint.HasSection(kOptimizer)) {
    if (policy != Policy::RESET && ParametersAreAsTheyWere(checkpoint)) {
      return absl::OkStatus();
    }
    return InvalidField("optimizer_policy",
                        "the stored optimizer does not tell which parameters it holds, "
                        "so that its state cannot follow them: DROP it");
  }
  if (index->group_count() == 0 && policy != Policy::DROP) return absl::OkStatus();
  return Follower(policy, *index, checkpoint, report).Run();
}

}  // namespace modelstore::server::modify
