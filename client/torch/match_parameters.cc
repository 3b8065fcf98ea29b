#include "client/torch/match_parameters.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/torch/element_type.h"
#include "client/torch/load_optimizer.h"
#include "client/torch/settings.h"

namespace modelstore::torch_internal {
namespace match_parameters {

// A parameter of the live optimizer.
struct Own {
  torch::Tensor tensor;
  size_t position = 0;
  std::vector<std::string> names;  // several if it is tied
};

std::vector<Own> OwnParameters(const torch::optim::OptimizerParamGroup& group,
                               const ParameterNames& names) {
  std::vector<Own> own;
  std::set<StateKeyType> seen;
  for (size_t p = 0; p < group.params().size(); ++p) {
    const torch::Tensor& tensor = group.params()[p];
    if (!seen.insert(StateKey(tensor)).second) continue;
    own.push_back({tensor, p, names.FindAll(tensor)});
  }
  return own;
}

// A stored group: each pair of id and name once; names after renaming.
struct Stored {
  std::vector<Value> ids;
  std::vector<std::string> names;  // empty, or one for each id
};

class Matcher {
 public:
  explicit Matcher(const ParameterMatching& matching) : m_(matching) {}

  absl::StatusOr<MatchedGroups> Run(bool& inferred) {
    MatchedGroups matched(m_.groups.size());
    for (size_t g = 0; g < m_.groups.size(); ++g) {
      absl::StatusOr<Stored> stored = ReadStored(g, m_.groups[g]);
      if (!stored.ok()) return stored.status();
      const std::vector<Own> own =
          OwnParameters(m_.optimizer.param_groups()[g], m_.names);
      absl::Status status = MatchGroup(g, *stored, own, matched[g]);
      if (!status.ok()) return status;
    }
    if (absl::Status s = CheckOrder(); !s.ok()) return s;
    inferred = inferred || !by_position_.empty();
    return matched;
  }

 private:
  // A match by position, to be checked by CheckOrder() once all groups are matched.
  struct ByPosition {
    size_t group;
    Own own;
    Value id;
  };

  absl::StatusOr<Stored> ReadStored(size_t g, const Value& group) const {
    const std::vector<Value>* ids = ListOf(group.Find("params"));
    if (ids == nullptr) {
      return RefuseOptimizer(absl::StrCat("group ", g, " has no `params`"));
    }
    const Value* given = group.Find("param_names");
    const std::vector<Value>* names = ListOf(given);
    const bool named = given != nullptr && !given->IsNull();
    if (named && (names == nullptr || names->size() != ids->size())) {
      return RefuseOptimizer(absl::StrCat(
          "group ", g, " has `param_names` that are not one for each of its `params`"));
    }
    Stored stored;
    std::set<std::pair<std::string, std::string>> seen;
    for (size_t i = 0; i < ids->size(); ++i) {
      std::string name;
      if (named) {
        absl::StatusOr<std::string> renamed = m_.renames.Apply(TextOf((*names)[i]));
        if (!renamed.ok()) return renamed.status();
        name = *std::move(renamed);
      }
      // A parameter that a Python optimizer holds twice is listed twice with one id.
      if (!seen.emplace((*ids)[i].ToString(), name).second) continue;
      stored.ids.push_back((*ids)[i]);
      if (named) stored.names.push_back(std::move(name));
    }
    return stored;
  }

  // Chooses between matching by name and by position for one group.
  absl::Status MatchGroup(size_t g, const Stored& stored, const std::vector<Own>& own,
                          std::vector<MatchedParameter>& matched) {
    const bool ours_named = std::all_of(own.begin(), own.end(),
                                        [](const Own& o) { return !o.names.empty(); });
    if (!stored.names.empty() && ours_named && !m_.names.empty()) {
      return MatchByName(g, stored, own, matched);
    }
    if (!stored.names.empty() && !own.empty()) {
      // Parameters outside the module have no name; the stored order does not identify
      // them.
      if (!m_.names.empty()) return RefuseUnnamedParameters(g, stored, own);
      if (!m_.any_order) return RefuseUnnamed(g, stored);
    }
    if (stored.ids.size() != own.size()) {
      return RefuseOptimizer(absl::StrCat("group ", g, " has ", stored.ids.size(),
                                          " parameter(s), the optimizer's has ",
                                          own.size()));
    }
    for (size_t p = 0; p < own.size(); ++p) {
      matched.push_back({own[p].tensor, stored.ids[p]});
      by_position_.push_back({g, own[p], stored.ids[p]});
    }
    return absl::OkStatus();
  }

  // Matches one group by name; every stored and every own parameter must be matched. A
  // tied parameter takes the state of any of its names; if several are stored, they must
  // agree.
  absl::Status MatchByName(size_t g, const Stored& stored, const std::vector<Own>& own,
                           std::vector<MatchedParameter>& matched) const {
    std::multimap<std::string, Value> left;
    for (size_t i = 0; i < stored.ids.size(); ++i) {
      left.emplace(stored.names[i], stored.ids[i]);
    }
    std::vector<std::string> absent;
    std::set<std::string> taken;
    for (const Own& parameter : own) {
      if (!taken.insert(parameter.names.front()).second) {
        return RefuseOptimizer(absl::StrCat(
            ParameterText(g, parameter.position, parameter.tensor), " is the memory of `",
            parameter.names.front(), "`, as an earlier parameter is"));
      }
      const Value* id = nullptr;
      for (const std::string& name : parameter.names) {
        const auto [begin, end] = left.equal_range(name);
        for (auto it = begin; it != end; ++it) {
          if (id == nullptr) {
            matched.push_back({parameter.tensor, it->second});
            id = &matched.back().id;
          } else if (!m_.same_state(*id, it->second)) {
            return RefuseOptimizer(
                absl::StrCat("it has several states for the parameter `",
                             absl::StrJoin(parameter.names, "`, `"), "`"));
          }
        }
        left.erase(begin, end);
      }
      if (id == nullptr) absent.push_back(parameter.names.front());
    }
    if (absent.empty() && left.empty()) {
      return m_.table.of_group ? CheckOrderOfGroup(stored, matched) : absl::OkStatus();
    }
    std::vector<std::string> surplus;
    for (const auto& [name, id] : left) surplus.push_back(name);
    return RefuseOptimizer(
        absl::StrCat("group ", g, " holds other parameters: not stored: [",
                     absl::StrJoin(absent, ", "), "]; not in the optimizer: [",
                     absl::StrJoin(surplus, ", "), "]"));
  }

  // For optimizers with one flat state per group (LBFGS): the order must be the stored
  // one.
  absl::Status CheckOrderOfGroup(const Stored& stored,
                                 const std::vector<MatchedParameter>& matched) const {
    std::vector<std::string> ours;
    bool same = matched.size() == stored.ids.size();
    for (size_t i = 0; i < matched.size(); ++i) {
      ours.push_back(m_.names.Find(matched[i].parameter));
      same = same && matched[i].id == stored.ids[i];
    }
    if (same) return absl::OkStatus();
    return RefuseOptimizer(absl::StrCat(
        "the state of ", m_.table.name, " is of [", absl::StrJoin(stored.names, ", "),
        "] in this order, the optimizer holds [", absl::StrJoin(ours, ", "), "]"));
  }

  // Both sides have names, but some of our parameters have none.
  absl::Status RefuseUnnamedParameters(size_t g, const Stored& stored,
                                       const std::vector<Own>& own) const {
    std::vector<std::string> nameless;
    for (const Own& parameter : own) {
      if (parameter.names.empty()) nameless.push_back(absl::StrCat(parameter.position));
    }
    return RefuseOptimizer(absl::StrCat(
        "group ", g, " holds [", absl::StrJoin(stored.names, ", "),
        "], and parameter(s) ", absl::StrJoin(nameless, ", "),
        " of the optimizer's are none of the module's: name them in extra_tensors"));
  }

  static absl::Status RefuseUnnamed(size_t g, const Stored& stored) {
    return RefuseOptimizer(absl::StrCat(
        "group ", g, " holds [", absl::StrJoin(stored.names, ", "),
        "], and the optimizer's parameters have no names here: give the module that they "
        "are of, or set parameter_order"));
  }

  // Refuses ambiguous matches by position. Two parameters can be confused if they have
  // the same shape and either has state. Without state no stored shape is known; then two
  // parameters can be confused if their groups have different options.
  absl::Status CheckOrder() const {
    if (m_.any_order) return absl::OkStatus();
    const ByPosition* first = nullptr;
    for (const ByPosition& p : by_position_) {
      if (m_.has_state(p.id)) continue;
      if (first == nullptr) first = &p;
      if (!SameOptions(first->group, p.group)) return RefuseOrder(*first, p);
    }
    std::map<std::vector<int64_t>, std::vector<const ByPosition*>> by_shape;
    for (const ByPosition& p : by_position_) {
      // Flat state of a whole group does not reveal the shapes in it: all are alike.
      const auto shape =
          m_.table.of_group ? std::vector<int64_t>{-1} : p.own.tensor.sizes().vec();
      by_shape[shape].push_back(&p);
    }
    for (const auto& [shape, alike] : by_shape) {
      const bool state = std::any_of(alike.begin(), alike.end(),
                                     [&](const auto* p) { return m_.has_state(p->id); });
      if (alike.size() > 1 && state) return RefuseOrder(*alike[0], *alike[1]);
    }
    return absl::OkStatus();
  }

  // Whether two stored groups have equal options.
  bool SameOptions(size_t a, size_t b) const {
    const auto options = m_.table.read_options(m_.optimizer.param_groups()[a].options());
    return std::all_of(options.begin(), options.end(), [&](const auto& option) {
      const Value* x = m_.groups[a].Find(option.first);
      const Value* y = m_.groups[b].Find(option.first);
      return x != nullptr && y != nullptr && SameSetting(*x, *y);
    });
  }

  static absl::Status RefuseOrder(const ByPosition& a, const ByPosition& b) {
    return RefuseOptimizer(absl::StrCat(
        "its parameters have no names, and ",
        ParameterText(a.group, a.own.position, a.own.tensor), " could be mistaken for ",
        ParameterText(b.group, b.own.position, b.own.tensor),
        ": save it with `param_names` in its groups, or set parameter_order to go by "
        "position as PyTorch does"));
  }

  const ParameterMatching& m_;
  std::vector<ByPosition> by_position_;
};

}  // namespace match_parameters

absl::StatusOr<MatchedGroups> MatchParameters(const ParameterMatching& matching,
                                              bool& inferred) {
  return match_parameters::Matcher(matching).Run(inferred);
}

}  // namespace modelstore::torch_internal
