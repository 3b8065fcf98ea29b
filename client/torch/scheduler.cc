#include "client/torch/scheduler.h"

#include <c10/util/Type.h>

#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "client/torch/settings.h"

namespace modelstore::torch_internal {
namespace {

// Gives access to the protected `step_count_`.
struct Count : torch::optim::LRScheduler {
  static constexpr unsigned torch::optim::LRScheduler::*kSteps = &Count::step_count_;
};

// StepLR has no accessors for its private settings. Access checks do not apply to
// arguments of an explicit instantiation ([temp.spec]), so each instantiation below may
// name a private member; it defines the friend function that returns it.
template <typename Tag, typename Tag::Type kMember>
struct Reveal {
  friend typename Tag::Type MemberOf(Tag) { return kMember; }
};
struct StepSize {
  using Type = const unsigned torch::optim::StepLR::*;
  friend Type MemberOf(StepSize);
};
struct Gamma {
  using Type = const double torch::optim::StepLR::*;
  friend Type MemberOf(Gamma);
};
template struct Reveal<StepSize, &torch::optim::StepLR::step_size_>;
template struct Reveal<Gamma, &torch::optim::StepLR::gamma_>;

// False for keys of Python's state dict that are not settings: counts, and learning
// rates, which belong to the optimizer.
bool IsSchedulerSetting(std::string_view key) {
  for (const char* other : {"last_epoch", "_step_count", "_last_lr", "base_lrs",
                            "verbose", "_get_lr_called_within_step", "_is_initial"}) {
    if (key == other) return false;
  }
  return true;
}

std::vector<std::pair<std::string, Value>> SchedulerSettings(
    const torch::optim::LRScheduler& scheduler) {
  const auto* step = dynamic_cast<const torch::optim::StepLR*>(&scheduler);
  if (step == nullptr) return {};
  return {{"step_size", static_cast<int64_t>(step->*MemberOf(StepSize()))},
          {"gamma", step->*MemberOf(Gamma())}};
}

std::string SchedulerClass(const torch::optim::LRScheduler& scheduler) {
  if (typeid(scheduler) == typeid(torch::optim::StepLR)) return "StepLR";
  return c10::demangle(typeid(scheduler).name());
}

}  // namespace

Value SchedulerState(const torch::optim::LRScheduler& scheduler) {
  Value state = Value::Dict();
  for (auto& [name, value] : SchedulerSettings(scheduler)) {
    state.Set(name, std::move(value));
  }
  const auto steps = static_cast<int64_t>(scheduler.*Count::kSteps);
  state.Set("last_epoch", steps);
  state.Set("_step_count", steps + 1);
  return state;
}

Value SchedulerMetadata(const torch::optim::LRScheduler& scheduler) {
  return Value::Dict({{"class", SchedulerClass(scheduler)}});
}

absl::StatusOr<int64_t> ReadSchedulerSteps(const std::string& section,
                                           const Value& state) {
  const Value* value = state.Find("last_epoch");
  const int64_t* steps = value ? std::get_if<int64_t>(&value->variant()) : nullptr;
  if (steps == nullptr || *steps < 0 || *steps > std::numeric_limits<unsigned>::max()) {
    return absl::FailedPreconditionError("section `" + section +
                                         "` holds no count of steps: `last_epoch`");
  }
  return *steps;
}

void SetSchedulerSteps(torch::optim::LRScheduler& scheduler, int64_t steps) {
  scheduler.*Count::kSteps = static_cast<unsigned>(steps);
}

std::vector<LoadReport::SettingChange> SchedulerChanges(
    const torch::optim::LRScheduler& scheduler, const std::string& section,
    const Value& state, const Value& metadata) {
  std::vector<LoadReport::SettingChange> changes;
  const Value* stored_class = metadata.Find("class");
  const std::string our_class = SchedulerClass(scheduler);
  if (stored_class != nullptr && TextOf(*stored_class) != our_class) {
    changes.push_back({section, TextOf(*stored_class), our_class});
  }
  const auto* entries = std::get_if<Value::DictEntries>(&state.variant());
  if (entries == nullptr) return changes;
  const auto settings = SchedulerSettings(scheduler);
  for (const auto& [key, value] : entries->entries) {
    const std::string name = TextOf(key);
    const std::string full_name = section + ":" + name;
    if (!IsSchedulerSetting(name)) continue;
    const auto ours = std::find_if(settings.begin(), settings.end(),
                                   [&](const auto& s) { return s.first == name; });
    if (ours == settings.end()) {
      changes.push_back({full_name, value.ToString(), ""});
    } else if (!SameSetting(value, ours->second)) {
      changes.push_back({full_name, value.ToString(), ours->second.ToString()});
    }
  }
  return changes;
}

}  // namespace modelstore::torch_internal
