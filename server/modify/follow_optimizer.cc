#include "server/modify/follow_optimizer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/contract/errors.h"
#include "server/modify/optimizer_section.h"
#include "server/modify/optimizer_slice.h"

namespace modelstore::server::modify {
namespace {

using Policy = v1::ModifyCheckpointRequest;

// Maximum number of names in a warning about several parameters.
constexpr size_t kListed = 3;
constexpr int kWholeCheckpoint = -1;

double NumberOf(const v1::Value* value) {
  if (value == nullptr) return 0;
  return value->has_double_value() ? value->double_value()
                                   : static_cast<double>(value->int_value());
}

std::string Listed(const std::vector<std::string>& keys) {
  const size_t listed = std::min(keys.size(), kListed);
  return absl::StrCat(
      absl::StrJoin(keys.begin(), keys.begin() + static_cast<ptrdiff_t>(listed), ", "),
      keys.size() > listed ? ", ..." : "");
}

// A parameter of a group after the modification.
struct Member {
  int64_t id = 0;
  // Its current key in section `model`; for a parameter outside the model, the name that
  // the optimizer gives it.
  std::string key;
  std::optional<size_t> tensor;  // position in the table
  bool had_state = false;
  // Joined by this modification, so it has no state to keep.
  bool added = false;
  ParameterFate::OptimizerFate fate = ParameterFate::OPTIMIZER_FATE_NO_STATE;
};

// Updates one resolved optimizer. The constructor finds the tensor that each parameter
// has become; then the caller calls Drop() or Run(), once. Run() has three phases: Join()
// adds new parameters to the groups, DecideFate() decides about the state of each member,
// and Write() changes the section. Members hold positions in the table of tensors, which
// Write() invalidates at its end by erasing and inserting state tensors.
class Follower {
 public:
  Follower(Policy::OptimizerPolicy policy, const OptimizerIndex& index,
           WorkingCheckpoint& checkpoint, EditResources& resources, Report& report)
      : policy_(policy),
        index_(index),
        checkpoint_(checkpoint),
        resources_(resources),
        report_(report) {
    for (size_t t = 0; t < checkpoint_.tensors().size(); ++t) {
      const WorkingTensor& tensor = checkpoint_.tensors()[t];
      if (tensor.section != "model") continue;
      if (tensor.origin.has_value()) place_of_[*tensor.origin] = t;
    }
    Place();
  }

  // Removes the section, unless an edit already has, and reports all state as dropped.
  void Drop() {
    checkpoint_.DropSection(index_.section());
    auto tell = [&](const Member& member) {
      if (!member.had_state) return;
      Tell(member, {ParameterFate::OPTIMIZER_FATE_STATE_DROPPED, std::nullopt});
    };
    for (const auto& group : groups_) {
      for (const Member& member : group) tell(member);
    }
    for (const Member& member : gone_) tell(member);
  }

  absl::Status Run(OptimizerSection& section) {
    section_ = &section;
    Join();
    for (size_t g = 0; g < groups_.size(); ++g) DecideFate(g);
    if (auto s = Write(); !s.ok()) return s;
    for (size_t g = 0; g < groups_.size(); ++g) {
      for (const Member& member : groups_[g]) {
        if (!member.tensor.has_value()) continue;
        Tell(member, {member.fate, static_cast<int>(g)});
      }
    }
    return absl::OkStatus();
  }

 private:
  void Tell(const Member& member, Report::OptimizerState state) {
    report_.SetOptimizer(index_.section(), member.key, state);
  }

  const WorkingTensor& TensorOf(const Member& member) const {
    return checkpoint_.tensors()[*member.tensor];
  }

  // Finds the current tensor of each parameter of the base. If several tensors were tied,
  // it is the first one whose values are unchanged, or else the first one. Parameters
  // whose tensors have all been removed go to `gone_`.
  void Place() {
    groups_.resize(index_.group_count());
    for (const OptimizerIndex::Parameter& parameter : index_.parameters()) {
      Member member;
      member.id = parameter.id;
      member.key = parameter.name;
      member.had_state = parameter.has_state;
      next_id_ = std::max(next_id_, parameter.id + 1);
      // Pairs of (values changed, position): the smallest is the best.
      std::pair<bool, size_t> best;
      for (const int origin : parameter.origins) {
        auto place = place_of_.find(origin);
        if (place == place_of_.end()) continue;
        const bool others =
            !checkpoint_.HasOriginalValues(checkpoint_.tensors()[place->second]);
        const std::pair<bool, size_t> found(others, place->second);
        if (member.tensor.has_value() && best < found) continue;
        best = found;
        member.tensor = place->second;
      }
      if (member.tensor.has_value()) {
        member.key = TensorOf(member).key;
        for (const WorkingTensor* tied :
             checkpoint_.TiedTo(checkpoint_.tensors()[*member.tensor])) {
          held_.insert(tied->key);
        }
      }
      // Without origins it is not a parameter of the model, so no edit has removed it.
      if (member.tensor.has_value() || parameter.origins.empty()) {
        groups_[parameter.group].push_back(std::move(member));
        continue;
      }
      member.key = checkpoint_.base()->manifest().tensors(parameter.origins[0]).key();
      state_reset_.insert(member.id);
      if (!member.had_state) continue;
      gone_keys_.insert(member.key);
      gone_.push_back(std::move(member));
    }
  }

  // The group that a tensor joins: a new trainable tensor, or one that an edit has untied
  // from a parameter of this optimizer. None for a tensor that is a member already.
  std::optional<int> JoinedGroup(const WorkingTensor& tensor) const {
    if (tensor.section != "model" || held_.contains(tensor.key)) return std::nullopt;
    // A plain state dict has no roles: there, requires_grad says nothing.
    const bool frozen = tensor.role == v1::TENSOR_ROLE_PARAMETER && !tensor.requires_grad;
    if (!tensor.origin.has_value() && frozen) return std::nullopt;
    return index_.GroupOf(tensor);
  }

  // Adds the new members to their groups and gives them new numbers. Each goes directly
  // after the last member of its group that precedes it in the table, which is in state
  // dict order.
  void Join() {
    std::vector<std::vector<Member>> fresh(groups_.size());
    for (size_t t = 0; t < checkpoint_.tensors().size(); ++t) {
      WorkingTensor& tensor = checkpoint_.tensors()[t];
      const std::optional<int> group = JoinedGroup(tensor);
      if (!group.has_value()) continue;
      for (const WorkingTensor* tied : checkpoint_.TiedTo(tensor))
        held_.insert(tied->key);
      Member member;
      member.id = next_id_++;
      member.key = tensor.key;
      member.tensor = t;
      member.added = true;
      // A new parameter at the key of a removed one replaces it: the report says that the
      // state was reset, not that there was none.
      member.had_state = gone_keys_.contains(tensor.key);
      fresh[*group].push_back(std::move(member));
    }
    for (size_t g = 0; g < groups_.size(); ++g) Merge(std::move(fresh[g]), groups_[g]);
    for (const Member& member : gone_) {
      // The parameter that replaces this one reports its state as reset.
      if (held_.contains(member.key)) continue;
      Tell(member, {ParameterFate::OPTIMIZER_FATE_STATE_DROPPED, std::nullopt});
    }
  }

  // Merges `fresh`, which is in table order, into the group. The members of the group
  // keep their order, which need not be that of the table.
  static void Merge(std::vector<Member> fresh, std::vector<Member>& group) {
    if (fresh.empty()) return;
    // Maps the position of a member in the table to the number of members that must
    // precede a new one behind it. The running maximum keeps this ascending where the
    // group is not in table order.
    std::map<size_t, size_t> stand;
    for (size_t m = 0; m < group.size(); ++m) {
      if (group[m].tensor.has_value()) stand[*group[m].tensor] = m + 1;
    }
    size_t most = 0;
    for (auto& [tensor, place] : stand) place = most = std::max(most, place);
    std::vector<Member> merged;
    merged.reserve(group.size() + fresh.size());
    size_t taken = 0;
    for (Member& member : fresh) {
      auto behind = stand.lower_bound(*member.tensor);
      const size_t place = behind == stand.begin() ? 0 : std::prev(behind)->second;
      for (; taken < place; ++taken) merged.push_back(std::move(group[taken]));
      merged.push_back(std::move(member));
    }
    for (; taken < group.size(); ++taken) merged.push_back(std::move(group[taken]));
    group = std::move(merged);
  }

  // Whether the bytes are unchanged. Parameters outside the model never change.
  bool HasUnchangedBytes(const Member& member) const {
    if (!member.tensor.has_value()) return true;
    return !member.added && checkpoint_.HasOriginalBytes(TensorOf(member));
  }

  // Decides what becomes of the state of each member of a group.
  void DecideFate(size_t g) {
    std::vector<Member>& group = groups_[g];
    const v1::Value& options = section_->Group(static_cast<int>(g));
    // Of PyTorch's optimizers only LBFGS has this option.
    if (FindEntry(options, "history_size") != nullptr)
      return DecideGroupFate(options, group);
    for (Member& member : group) {
      if (!member.had_state) continue;
      const WorkingTensor* tensor =
          member.tensor.has_value() ? &TensorOf(member) : nullptr;
      if (policy_ == Policy::OPTIMIZER_POLICY_RESET || member.added) {
        member.fate = ParameterFate::OPTIMIZER_FATE_STATE_RESET;
      } else if (tensor == nullptr || checkpoint_.HasOriginalValues(*tensor)) {
        member.fate = ParameterFate::OPTIMIZER_FATE_STATE_KEPT;
      } else if (CanSliceState(*tensor, index_.section(), section_->StateOf(member.id),
                               checkpoint_)) {
        member.fate = ParameterFate::OPTIMIZER_FATE_STATE_SLICED;
      } else {
        member.fate = ParameterFate::OPTIMIZER_FATE_STATE_RESET;
        resets_[tensor->changed_by].push_back(member.key);
      }
    }
  }

  // Decides for a group of LBFGS: its one state is a history of flattened gradients of
  // all parameters, so it stays valid only if number, order and bytes of them are
  // unchanged.
  void DecideGroupFate(const v1::Value& options, std::vector<Member>& group) {
    const auto& ids = *ElementsOf(FindEntry(options, "params"));
    bool same = policy_ != Policy::OPTIMIZER_POLICY_RESET &&
                ids.size() == static_cast<int>(group.size());
    for (size_t m = 0; same && m < group.size(); ++m) {
      same = HasUnchangedBytes(group[m]) &&
             ids[static_cast<int>(m)].int_value() == group[m].id;
    }
    const bool had = std::any_of(group.begin(), group.end(),
                                 [](const Member& member) { return member.had_state; });
    for (Member& member : group) {
      if (!had) continue;
      member.fate = same ? ParameterFate::OPTIMIZER_FATE_STATE_KEPT
                         : ParameterFate::OPTIMIZER_FATE_STATE_RESET;
      if (same || policy_ == Policy::OPTIMIZER_POLICY_RESET || HasUnchangedBytes(member))
        continue;
      if (!member.added) resets_[TensorOf(member).changed_by].push_back(member.key);
    }
  }

  // Rewrites groups and states. State is sliced before any of it is erased, while
  // positions in the table are valid.
  absl::Status Write() {
    std::vector<OptimizerSection::Beginning> adagrad;
    absl::flat_hash_set<std::string> sliced;
    for (size_t g = 0; g < groups_.size(); ++g) {
      const v1::Value* initial =
          FindEntry(section_->Group(static_cast<int>(g)), "initial_accumulator_value");
      for (const Member& member : groups_[g]) {
        if (member.fate == ParameterFate::OPTIMIZER_FATE_STATE_RESET)
          state_reset_.insert(member.id);
        if (member.fate == ParameterFate::OPTIMIZER_FATE_STATE_SLICED) {
          auto s = SliceState(TensorOf(member), index_.section(),
                              *section_->StateOf(member.id), NumberOf(initial),
                              checkpoint_, resources_, sliced);
          if (!s.ok()) return s;
        }
        // Adagrad alone has the option `initial_accumulator_value`.
        const bool begins =
            member.added || member.fate == ParameterFate::OPTIMIZER_FATE_STATE_RESET;
        if (initial == nullptr || !begins || !member.tensor.has_value()) continue;
        const WorkingTensor& tensor = TensorOf(member);
        adagrad.push_back({member.id, NumberOf(initial), tensor.dtype, tensor.shape});
      }
      WriteGroup(g);
    }
    Warn();
    auto s = section_->Forget([&](int64_t id) { return state_reset_.contains(id); });
    // Forget() and BeginAdagrad() move tensors: from here on, positions in members are
    // invalid.
    return s.ok() ? section_->BeginAdagrad(adagrad) : s;
  }

  void WriteGroup(size_t g) {
    std::vector<int64_t> ids;
    std::vector<std::string> names;
    for (const Member& member : groups_[g]) {
      ids.push_back(member.id);
      names.push_back(member.key);
    }
    section_->SetParameters(static_cast<int>(g), ids, names, index_.named_by_request());
  }

  void Warn() {
    for (const auto& [edit, keys] : resets_) {
      report_.Warn(
          Warning::KIND_OPTIMIZER_STATE_RESET, edit, keys[0],
          absl::StrCat("the state of ", keys.size(), " parameter(s) in section `",
                       index_.section(),
                       "` begins anew, since their values are others: ", Listed(keys)));
    }
  }

  const Policy::OptimizerPolicy policy_;
  const OptimizerIndex& index_;
  WorkingCheckpoint& checkpoint_;
  EditResources& resources_;
  Report& report_;
  OptimizerSection* section_ = nullptr;
  // Current position of each tensor of `model`, by its origin.
  absl::flat_hash_map<int, size_t> place_of_;
  std::vector<std::vector<Member>> groups_;
  // Removed parameters that had state, and their keys.
  std::vector<Member> gone_;
  absl::flat_hash_set<std::string> gone_keys_;
  // Numbers whose state is removed.
  absl::flat_hash_set<int64_t> state_reset_;
  // Keys of all tensors that are in a group, tied ones included.
  absl::flat_hash_set<std::string> held_;
  // Keys of parameters whose state is reset because their values changed, by index of the
  // edit that changed them; each entry becomes one warning.
  std::map<int, std::vector<std::string>> resets_;
  // Above all numbers of the base, so that kept state keeps its keys.
  int64_t next_id_ = 0;
};

// Groups of the removed parameters of the base, by key. Tied tensors count one by one.
absl::flat_hash_map<std::string, OptimizerGroups> GoneGroups(
    const OptimizerIndexes& optimizers, const WorkingCheckpoint& checkpoint) {
  absl::flat_hash_set<int> there;
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (tensor.origin.has_value()) there.insert(*tensor.origin);
  }
  absl::flat_hash_map<std::string, OptimizerGroups> gone;
  for (const OptimizerIndex* index : optimizers) {
    for (const OptimizerIndex::Parameter& parameter : index->parameters()) {
      for (const int origin : parameter.origins) {
        if (there.contains(origin)) continue;
        gone[checkpoint.base()->manifest().tensors(origin).key()].push_back(
            {index->position(), parameter.group});
      }
    }
  }
  return gone;
}

// Whether a tensor is a new trainable parameter for which no edit has chosen groups. In a
// plain state dict, which has no roles, it counts as trainable if it `replaces` a removed
// parameter, that is, has its key.
bool NeedsGroups(const WorkingTensor& tensor, bool replaces) {
  if (tensor.section != "model" || tensor.origin.has_value() ||
      !tensor.optimizer_groups.empty()) {
    return false;
  }
  if (tensor.role == v1::TENSOR_ROLE_PARAMETER) return tensor.requires_grad;
  return replaces && CanBeTrained(tensor.section, tensor.role, tensor.dtype);
}

// Chooses groups for the new parameters for which no edit has. `optimizers` are those
// that are kept.
absl::Status SettleRemainingGroups(const OptimizerIndexes& optimizers,
                                   WorkingCheckpoint& checkpoint,
                                   EditResources& resources) {
  const auto gone = GoneGroups(optimizers, checkpoint);
  std::vector<size_t> left;
  for (size_t t = 0; t < checkpoint.tensors().size(); ++t) {
    WorkingTensor& tensor = checkpoint.tensors()[t];
    const auto replaced = gone.find(tensor.key);
    if (!NeedsGroups(tensor, replaced != gone.end())) continue;
    if (replaced == gone.end()) {
      left.push_back(t);
    } else {
      tensor.optimizer_groups = replaced->second;
    }
  }
  const auto first =
      std::find_if(optimizers.begin(), optimizers.end(),
                   [](const OptimizerIndex* index) { return index->group_count() > 0; });
  if (left.empty() || first == optimizers.end()) return absl::OkStatus();
  const auto borrowed = resources.Borrow(checkpoint.PathBytes("model"));
  if (!borrowed.ok()) return borrowed.status();
  // The loop below changes `optimizer_groups` alone, of which `near` holds copies.
  const NearGroups near(optimizers, checkpoint);
  for (const size_t t : left) {
    WorkingTensor& tensor = checkpoint.tensors()[t];
    const std::vector<WorkingTensor*> tied = checkpoint.TiedTo(tensor);
    // Tied tensors are one parameter: it is a member already if one of them is.
    if (std::any_of(tied.begin(), tied.end(), [&](const WorkingTensor* other) {
          return !GroupsOf(optimizers, *other).empty();
        })) {
      continue;
    }
    const std::vector<OptimizerGroups> sets = near.Of(tensor.key);
    tensor.optimizer_groups =
        sets.empty() ? OptimizerGroups{{(*first)->position(), 0}} : sets[0];
  }
  return absl::OkStatus();
}

// Summary of the changes to all parameters of the model, for optimizers whose parameters
// cannot be identified.
struct Changes {
  // Some parameters were removed, added as trainable, reshaped or untied.
  bool others = false;
  // Some parameters have other values, in the same shape.
  bool values = false;
  // Index of an edit that changed values.
  int changed_by = kWholeCheckpoint;
  // New key by old key.
  absl::flat_hash_map<std::string, std::string> renamed;
};

Changes ChangesOf(const WorkingCheckpoint& checkpoint) {
  Changes changes;
  const auto& old = checkpoint.base()->manifest();
  int left = 0;
  // Tied group of the first tensor of each set that shared bytes in the base, by the
  // position of the tensor that owns the bytes.
  absl::flat_hash_map<int, int> tied;
  for (const auto& record : old.tensors()) {
    left += CanBeTrained(record) ? 1 : 0;
  }
  for (const WorkingTensor& tensor : checkpoint.tensors()) {
    if (!CanBeTrained(tensor.section, tensor.role, tensor.dtype)) continue;
    if (!tensor.origin.has_value()) {
      if (tensor.requires_grad || tensor.role != v1::TENSOR_ROLE_PARAMETER)
        changes.others = true;
      continue;
    }
    --left;
    const auto [group, first] =
        tied.try_emplace(checkpoint.OwnerOf(*tensor.origin), tensor.tied_group);
    if (!first && (tensor.tied_group == 0 || group->second != tensor.tied_group)) {
      changes.others = true;
    }
    const auto& record = old.tensors(*tensor.origin);
    if (!std::equal(tensor.shape.begin(), tensor.shape.end(), record.shape().begin(),
                    record.shape().end())) {
      changes.others = true;
    } else if (!checkpoint.HasOriginalValues(tensor)) {
      changes.values = true;
      changes.changed_by = tensor.changed_by;
    }
    if (tensor.key != record.key()) changes.renamed[record.key()] = tensor.key;
  }
  if (left != 0) changes.others = true;
  return changes;
}

absl::Status Refuse(const OptimizerIndex& index, absl::string_view why) {
  return InvalidField(
      "optimizer_policy",
      absl::StrCat("it cannot be told which parameters section `", index.section(),
                   "` holds: ", why,
                   ". Give their names in `optimizer_param_names`, or save the "
                   "optimizer with `param_names` in its groups (PyTorch 2.6 and later "
                   "writes them for optimizers over model.named_parameters()); or drop "
                   "it: OPTIMIZER_POLICY_DROP"));
}

bool HasAdagrad(OptimizerSection& section) {
  for (int g = 0; g < section.group_count(); ++g) {
    if (FindEntry(section.Group(g), "initial_accumulator_value") != nullptr) return true;
  }
  return false;
}

// Updates an optimizer whose parameters cannot be identified, as far as that is possible.
absl::Status FollowUnresolved(Policy::OptimizerPolicy policy, const OptimizerIndex& index,
                              WorkingCheckpoint& checkpoint, Report& report) {
  const Changes changes = ChangesOf(checkpoint);
  const bool resets = policy == Policy::OPTIMIZER_POLICY_RESET || changes.values;
  if (changes.others || (resets && index.malformed())) return Refuse(index, index.why());
  if (index.malformed() || (!resets && changes.renamed.empty())) return absl::OkStatus();
  auto section = OptimizerSection::Of(checkpoint, index.section());
  if (!section.ok()) {
    return resets ? Refuse(index, section.status().message()) : absl::OkStatus();
  }
  section->RenameParameters([&](const std::string& name) {
    auto renamed = changes.renamed.find(name);
    return renamed == changes.renamed.end() ? name : renamed->second;
  });
  if (!resets) return absl::OkStatus();
  // Adagrad's initial state needs the parameters' shapes, which are unknown here.
  if (HasAdagrad(*section)) return Refuse(index, index.why());
  if (policy != Policy::OPTIMIZER_POLICY_RESET) {
    report.Warn(Warning::KIND_OPTIMIZER_STATE_RESET, changes.changed_by, index.section(),
                absl::StrCat("all state in section `", index.section(),
                             "` begins anew: values of parameters are others, and it "
                             "cannot be told which state is theirs: ",
                             index.why()));
  }
  return section->Forget([](int64_t) { return true; });
}

void WarnNotFollowed(const WorkingCheckpoint& checkpoint, const OptimizerIndex& index,
                     Policy::OptimizerPolicy policy, Report& report) {
  const Changes changes = ChangesOf(checkpoint);
  if (policy != Policy::OPTIMIZER_POLICY_RESET && !changes.others && !changes.values)
    return;
  report.Warn(
      Warning::KIND_OPTIMIZER_NOT_FOLLOWED, kWholeCheckpoint, index.section(),
      absl::StrCat("section `", index.section(),
                   "` has no `param_groups`, as an optimizer's state dict has: it "
                   "stays as it was, though parameters changed"));
}

// Updates the section of one optimizer. New parameters have their groups by now.
absl::Status FollowOptimizer(Policy::OptimizerPolicy policy, const OptimizerIndex& index,
                             WorkingCheckpoint& checkpoint, EditResources& resources,
                             Report& report) {
  if (index.is_optimizer() && !index.resolved()) report.SetOptimizerUnknown();
  if (policy == Policy::OPTIMIZER_POLICY_DROP ||
      !checkpoint.HasSection(index.section())) {
    Follower(policy, index, checkpoint, resources, report).Drop();
    return absl::OkStatus();
  }
  if (!index.is_optimizer()) {
    WarnNotFollowed(checkpoint, index, policy, report);
    return absl::OkStatus();
  }
  // Decoding is reserved as an estimate first, and by its exact size once it is done.
  const auto borrowed = resources.Borrow(checkpoint.UndecodedBytes(index.section()));
  if (!borrowed.ok()) return borrowed.status();
  if (!index.resolved()) return FollowUnresolved(policy, index, checkpoint, report);
  auto section = OptimizerSection::Of(checkpoint, index.section());
  if (auto s = resources.ReserveGrowth(); !s.ok()) return s;
  const bool fits = section.ok() && section->group_count() == index.group_count();
  if (fits) {
    return Follower(policy, index, checkpoint, resources, report).Run(*section);
  }
  // Edits of the section itself have removed parts of it.
  return InvalidField(
      "edits",
      absl::StrCat("leave section `", index.section(), "` unlike an optimizer's: ",
                   section.ok() ? "groups are missing" : section.status().message(),
                   ". Use drop_section"));
}

}  // namespace

absl::Status FollowOptimizers(Policy::OptimizerPolicy policy,
                              const OptimizerIndexes& optimizers,
                              WorkingCheckpoint& checkpoint, EditResources& resources,
                              Report& report) {
  const std::vector<std::string> there = checkpoint.SectionNames();
  OptimizerIndexes stay;
  for (const OptimizerIndex* index : optimizers) {
    const bool kept =
        std::find(there.begin(), there.end(), index->section()) != there.end();
    if (kept && policy != Policy::OPTIMIZER_POLICY_DROP) stay.push_back(index);
  }
  // Groups are chosen for all optimizers before any is updated: the nearest relatives of
  // a parameter are found from origins, which no update changes.
  if (auto s = SettleRemainingGroups(stay, checkpoint, resources); !s.ok()) return s;
  for (const OptimizerIndex* index : optimizers) {
    if (auto s = resources.CheckCancelled(); !s.ok()) return s;
    auto s = FollowOptimizer(policy, *index, checkpoint, resources, report);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::server::modify
