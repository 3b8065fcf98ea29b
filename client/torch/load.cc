#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/internal/rpc.h"
#include "client/torch/device/device_runtime.h"
#include "client/torch/element_type.h"
#include "client/torch/guard.h"
#include "client/torch/key_rules.h"
#include "client/torch/load_module.h"
#include "client/torch/load_optimizer.h"
#include "client/torch/load_transfer.h"
#include "client/torch/member_check.h"
#include "client/torch/named_sections.h"
#include "client/torch/optimizer_save.h"
#include "client/torch/placement.h"
#include "client/torch/scheduler.h"
#include "client/torch/settings.h"
#include "client/torch/shared_memory.h"
#include "modelstore/torch.h"
#include "proto/contract/errors.h"

namespace modelstore {
namespace torch_internal {
namespace {

// One LoadCheckpoint() call. Prepare() validates everything and plans, the Transfer
// writes the module's tensors, Finish() sets optimizers, schedulers, generators and
// returned sections. Prepare() changes nothing of the caller's but the result.
class Loader {
 public:
  Loader(const Client& client, std::string_view name, const LoadArgs& args,
         const LoadOptions& options, LoadResult& result)
      : client_(client),
        name_(name),
        args_(args),
        options_(options),
        deadline_(internal::TransferDeadline(options.deadline)),
        result_(result) {
    options_.deadline = deadline_;
  }

  absl::Status Run() {
    absl::Status status = Prepare();
    if (!status.ok() || !transfer_.has_value()) return status;
    status = transfer_->Run(deadline_, result_.report);
    return status.ok() ? Finish() : status;
  }

 private:
  absl::Status Prepare() {
    absl::StatusOr<Placement> placement =
        Placement::Make(args_, options_, result_.report);
    if (!placement.ok()) return placement.status();
    placement_ = *std::move(placement);
    if (args_.module && args_.state_dict) {
      return absl::InvalidArgumentError("give a module or a state dict, not both");
    }
    absl::Status status = NameSections();
    if (!status.ok()) return status;
    if (!optimizers_.empty() && options_.target_dtype.has_value()) {
      return InvalidField("options.target_dtype",
                          "would cast an optimizer's state and its counts of steps: "
                          "load it without");
    }
    absl::StatusOr<KeyRenames> renames = KeyRenames::Make(args_);
    if (!renames.ok()) return renames.status();
    renames_ = *std::move(renames);
    absl::StatusOr<KeyPatterns> patterns =
        KeyPatterns::Make("non_persistent", args_.non_persistent);
    if (!patterns.ok()) return patterns.status();
    non_persistent_ = *std::move(patterns);
    status = ReadEntries();
    if (status.ok()) status = MakePlan();
    // No plan: all requested sections are absent, and the policy accepts that.
    if (!status.ok() || !plan_.has_value()) return status;
    status = PlanLive();
    if (status.ok()) status = PlanSchedulers();
    if (status.ok()) status = PlanRng();
    result_.report.unused_placement = placement_.Unused();
    if (!status.ok()) return status;
    transfer_.emplace(*plan_, *index_, args_.atomic, placement_.falls_back());
    transfer_->AddLive(std::move(matches_));
    transfer_->AddShared(std::move(shared_), args_.shared_memory);
    for (const auto& [index, device] : fresh_) transfer_->AddFresh(index, device);
    return absl::OkStatus();
  }

  // Assigns optimizers and schedulers to sections.
  absl::Status NameSections() {
    auto optimizers = OptimizersOf(args_);
    if (!optimizers.ok()) return optimizers.status();
    auto schedulers = BySection<torch::optim::LRScheduler>("scheduler", args_.scheduler,
                                                           args_.schedulers);
    if (!schedulers.ok()) return schedulers.status();
    optimizers_ = *std::move(optimizers);
    schedulers_ = *std::move(schedulers);
    return absl::OkStatus();
  }

  // Collects the tensors to fill: those of the module and extra_tensors.
  absl::Status ReadEntries() {
    if (args_.module) entries_ = WalkState(*args_.module, non_persistent_);
    if (absl::Status s = AddExtra(args_.extra_tensors, entries_); !s.ok()) return s;
    // names_ uses the registered tensors, which optimizers hold; FollowMembers() then
    // replaces entries by the tensors that forward() uses. A state dict gets fresh
    // tensors.
    if (args_.module || !entries_.empty()) names_.emplace(entries_);
    if (!args_.module || args_.ignore_reassigned_members) return absl::OkStatus();
    return FollowMembers(*args_.module, "loaded", entries_);
  }

  absl::Status MakePlan() {
    // Resolves `latest` or an alias once, so that all later calls use the same version.
    absl::StatusOr<CheckpointInfo> checkpoint =
        client_.GetCheckpoint(name_, {.deadline = deadline_});
    if (!checkpoint.ok()) return checkpoint.status();
    result_.checkpoint = *checkpoint;
    if (absl::Status status = ChooseSections(*checkpoint); !status.ok()) return status;
    if (wanted_.empty()) return absl::OkStatus();
    LoadOptions options = options_;
    options.selection.sections.assign(wanted_.begin(), wanted_.end());
    absl::StatusOr<LoadPlan> plan = client_.PlanLoad(checkpoint->name, options);
    if (!plan.ok()) return plan.status();
    // Plans again with a cast on the server if that sends fewer bytes.
    if (const std::optional<DType> narrower = NarrowerType(*plan)) {
      options.target_dtype = narrower;
      plan = client_.PlanLoad(checkpoint->name, options);
      if (!plan.ok()) return plan.status();
    }
    plan_.emplace(*std::move(plan));
    index_.emplace(plan_->tensors());
    if (options.target_dtype.has_value()) {
      absl::StatusOr<std::vector<TensorInfo>> stored =
          client_.ListTensors(checkpoint->name, {.deadline = deadline_});
      if (!stored.ok()) return stored.status();
      index_->NoteStoredTypes(*stored);
    }
    if (absl::Status s = index_->Rename(renames_, result_.report); !s.ok()) return s;
    for (const std::string& section : returned_) {
      ValueTree& tree = result_.sections[section];
      if (const SectionContent* content = FindSection(section))
        tree.value = content->value;
      AddFresh(section);
    }
    return absl::OkStatus();
  }

  // Returns the dtype that the server should cast to: the one that all floating-point
  // tensors of the module and extra_tensors have, if every stored tensor of another
  // floating-point type is wider. Nullopt if a cast on the server could lose precision or
  // save nothing.
  std::optional<DType> NarrowerType(const LoadPlan& plan) const {
    if (args_.module == nullptr || !optimizers_.empty() || !returned_.empty() ||
        options_.target_dtype.has_value() || args_.dtype != Policy::kFail) {
      return std::nullopt;
    }
    std::optional<DType> wanted;
    for (const StateEntry& entry : entries_) {
      if (!entry.tensor.is_floating_point()) continue;
      const absl::StatusOr<DType> dtype = DTypeFromTorch(entry.tensor.scalar_type());
      if (!dtype.ok() || (wanted.has_value() && *wanted != *dtype)) return std::nullopt;
      wanted = *dtype;
    }
    // The server does not cast to float8; torch does.
    if (!wanted.has_value() || ElementSize(*wanted) < 2) return std::nullopt;
    bool shrinks = false;
    for (const TensorInfo& info : plan.tensors()) {
      if (!IsFloatingPoint(info.dtype) || info.dtype == *wanted) continue;
      if (ElementSize(info.dtype) <= ElementSize(*wanted)) return std::nullopt;
      shrinks = true;
    }
    return shrinks ? wanted : std::nullopt;
  }

  // Computes wanted_ and returned_ from the arguments and applies `absent_sections`.
  absl::Status ChooseSections(const CheckpointInfo& checkpoint) {
    const std::set<std::string> stored(checkpoint.sections.begin(),
                                       checkpoint.sections.end());
    const std::vector<std::string>& named = options_.selection.sections;
    returned_.insert(named.begin(), named.end());
    const bool fills = args_.module || args_.state_dict || !args_.extra_tensors.empty();
    if (returned_.empty() && !fills && optimizers_.empty()) returned_ = stored;
    wanted_ = returned_;
    if (fills) wanted_.insert("model");
    for (const auto& [section, optimizer] : optimizers_) wanted_.insert(section);
    if (args_.rng) wanted_.insert("rng");
    for (const auto& [section, scheduler] : schedulers_) wanted_.insert(section);
    std::vector<std::string> absent;
    bool by_name = false;
    for (const std::string& section : wanted_) {
      if (stored.count(section) > 0) continue;
      absent.push_back(section);
      by_name = by_name || returned_.count(section) > 0;
    }
    if (absent.empty()) return absl::OkStatus();
    if (args_.absent_sections == Policy::kFail) {
      const std::string why = absl::StrCat(checkpoint.name, " has no section `",
                                           absl::StrJoin(absent, "` and no section `"),
                                           "`, only `", absl::StrJoin(stored, "`, `"),
                                           "`; to load without set `absent_sections`");
      result_.report.absent_sections = std::move(absent);
      return by_name ? absl::NotFoundError(why) : absl::FailedPreconditionError(why);
    }
    for (const std::string& section : absent) {
      wanted_.erase(section);
      returned_.erase(section);
    }
    if (args_.absent_sections == Policy::kReport) {
      result_.report.absent_sections = std::move(absent);
    }
    return absl::OkStatus();
  }

  // Matches everything of the caller's with the plan.
  absl::Status PlanLive() {
    if (args_.state_dict) AddFresh("model");
    if (options_.target_dtype.has_value()) ReportCasts();
    absl::Status status = PlanModel();
    return status.ok() ? PlanOptimizers() : status;
  }

  absl::Status PlanModel() {
    if (!names_.has_value() || wanted_.count("model") == 0) return absl::OkStatus();
    const SectionContent* model = FindSection("model");
    absl::StatusOr<std::vector<std::string>> left_out = LeftOut();
    if (!left_out.ok()) return left_out.status();
    absl::StatusOr<std::vector<Match>> matches =
        MatchModule(entries_, *index_, model ? model->metadata : Value(), *left_out,
                    non_persistent_, args_, options_, result_.report);
    if (!matches.ok()) return matches.status();
    matches_ = *std::move(matches);
    absl::StatusOr<std::vector<std::vector<size_t>>> shared =
        ResolveSharedMemory(client_, result_.checkpoint.name, *index_, args_, options_,
                            matches_, result_.report);
    if (!shared.ok()) return shared.status();
    shared_ = *std::move(shared);
    return absl::OkStatus();
  }

  absl::Status PlanOptimizers() {
    const ParameterNames names = names_.value_or(ParameterNames({}));
    for (const auto& [section, optimizer] : optimizers_) {
      if (wanted_.count(section) == 0) continue;
      const SectionContent* content = FindSection(section);
      SectionContent none;
      none.name = section;
      absl::StatusOr<OptimizerLoad> load =
          PlanOptimizer(args_, *optimizer, content ? *content : none, *index_, names,
                        renames_, result_.report);
      if (!load.ok()) return load.status();
      AddFresh(*load);
      optimizer_loads_.push_back(*std::move(load));
    }
    return absl::OkStatus();
  }

  // Fresh tensors for an optimizer's state, on the devices of its parameters. Numbers are
  // read on the CPU.
  void AddFresh(const OptimizerLoad& load) {
    for (const OptimizerLoad::ParameterState& state : load.states) {
      for (const auto& [name, index] : state.number_tensors) {
        fresh_.try_emplace(index, kCpu);
      }
      const int device = device::Runtime().DeviceOf(state.parameter);
      for (const auto& [name, indexes] : state.tensors) {
        for (const int64_t index : indexes) fresh_.try_emplace(index, device);
      }
    }
  }

  // Reports which fresh tensors target_dtype casts, and to which tensors it does not
  // apply.
  void ReportCasts() {
    for (size_t i = 0; i < plan_->tensors().size(); ++i) {
      const auto index = static_cast<int64_t>(i);
      const TensorInfo& info = index_->info(index);
      const std::string name = info.section == "model"
                                   ? index_->KeyOf(index)
                                   : absl::StrCat(info.section, ":", info.key);
      const DType stored = index_->stored_dtype(index);
      if (!IsFloatingPoint(stored)) {
        result_.report.uncast.push_back(name);
      } else if (stored != info.dtype && fresh_.count(index) > 0) {
        result_.report.dtype_change.push_back({name, stored, info.dtype});
      }
    }
  }

  // Keys of section `model`, after renaming, that the selection excludes from the plan.
  absl::StatusOr<std::vector<std::string>> LeftOut() {
    std::vector<std::string> keys;
    const TensorSelection& selection = options_.selection;
    if (selection.keys.empty() && selection.include.empty() &&
        selection.exclude.empty()) {
      return keys;
    }
    absl::StatusOr<std::vector<TensorInfo>> all =
        client_.ListTensors(result_.checkpoint.name, {.deadline = deadline_});
    if (!all.ok()) return all.status();
    for (const TensorInfo& info : *all) {
      if (info.section != "model") continue;
      absl::StatusOr<std::string> key = renames_.Apply(info.key);
      // A key that the renames reject was excluded to avoid that error: ignore it.
      if (key.ok() && index_->Find("model", *key) < 0) keys.push_back(*key);
    }
    return keys;
  }

  absl::Status PlanSchedulers() {
    for (const auto& [section, scheduler] : schedulers_) {
      if (wanted_.count(section) == 0) continue;
      absl::Status status = PlanScheduler(section, *scheduler);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status PlanScheduler(const std::string& section,
                             torch::optim::LRScheduler& scheduler) {
    const SectionContent* content = FindSection(section);
    absl::StatusOr<int64_t> steps =
        ReadSchedulerSteps(section, content ? content->value : Value());
    if (!steps.ok()) return steps.status();
    scheduler_steps_.emplace_back(&scheduler, *steps);
    if (args_.settings == Policy::kIgnore) return absl::OkStatus();
    const std::vector<LoadReport::SettingChange> changes =
        SchedulerChanges(scheduler, section, content->value, content->metadata);
    std::vector<LoadReport::SettingChange>& told = result_.report.settings;
    told.insert(told.end(), changes.begin(), changes.end());
    if (changes.empty() || args_.settings != Policy::kFail) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("the stored scheduler has other settings: ", SettingsText(changes),
                     "; to go on with those here set `settings`"));
  }

  // Checks section `rng` and plans which generators are restored.
  absl::Status PlanRng() {
    if (!args_.rng || wanted_.count("rng") == 0) return absl::OkStatus();
    const SectionContent* content = FindSection("rng");
    const Value* cpu = content ? content->value.Find("cpu") : nullptr;
    const auto* named = cpu ? std::get_if<Value::TensorKey>(&cpu->variant()) : nullptr;
    rng_ = named ? index_->Find("rng", named->key) : -1;
    const int64_t size = GetCpuRngState().numel();
    if (rng_ < 0 || index_->info(rng_).dtype != DType::kUint8 ||
        index_->info(rng_).shape != std::vector<int64_t>{size}) {
      return absl::FailedPreconditionError(absl::StrCat(
          "section `rng` holds no state of the CPU generator: `cpu`, uint8 [", size,
          "]"));
    }
    fresh_.try_emplace(rng_, kCpu);
    const Value* cuda = content->value.Find("cuda");
    absl::Status status = cuda ? PlanDeviceRng(*cuda) : absl::OkStatus();
    // Reports devices of the module whose generator state is not stored.
    std::set<int> devices;
    for (const Match& match : matches_) {
      devices.insert(device::Runtime().DeviceOf(match.target));
    }
    devices.erase(kCpu);
    for (const int device : devices) {
      if (device_rng_.contains(device)) continue;
      result_.report.skipped.push_back(absl::StrCat("rng:cuda/", device));
    }
    return status;
  }

  // `cuda` is a dict from the number of a GPU, as text, to its state.
  absl::Status PlanDeviceRng(const Value& cuda) {
    const int count = device::Runtime().DeviceCount();
    for (const int64_t index : index_->Section("rng")) {
      const std::string& key = index_->info(index).key;
      absl::string_view number = key;
      int device = 0;
      if (!absl::ConsumePrefix(&number, "cuda/")) continue;
      if (!absl::SimpleAtoi(number, &device) ||
          cuda.Find(std::string(number)) == nullptr ||
          index_->info(index).dtype != DType::kUint8) {
        return absl::FailedPreconditionError(absl::StrCat(
            "section `rng` holds no state of a GPU's generator: `", key, "`"));
      }
      if (device < 0 || device >= count) {
        result_.report.skipped.push_back(absl::StrCat("rng:", key));
        continue;
      }
      device_rng_[device] = index;
      fresh_.try_emplace(index, kCpu);
    }
    return absl::OkStatus();
  }

  // Optimizers come first, because creating their state may run out of memory.
  absl::Status Finish() {
    absl::Status status =
        ApplyOptimizers(optimizer_loads_, [&](int64_t i) { return transfer_->Fresh(i); });
    if (!status.ok()) return status;
    for (const auto& [scheduler, steps] : scheduler_steps_) {
      SetSchedulerSteps(*scheduler, steps);
    }
    if (rng_ >= 0) {
      status = SetCpuRngState(transfer_->Fresh(rng_));
      if (!status.ok()) return status;
    }
    for (const auto& [device, index] : device_rng_) {
      device::Runtime().SetRngState(device, transfer_->Fresh(index));
    }
    for (const std::string& section : returned_) {
      for (int64_t index : index_->Section(section)) {
        result_.sections[section].tensors[index_->info(index).key] =
            transfer_->Fresh(index);
      }
    }
    if (!args_.state_dict || wanted_.count("model") == 0) return absl::OkStatus();
    StateDict state_dict;
    for (int64_t index : index_->Section("model")) {
      state_dict.emplace_back(index_->KeyOf(index), transfer_->Fresh(index));
    }
    *args_.state_dict = std::move(state_dict);
    return absl::OkStatus();
  }

  // Fresh tensors for a whole section, placed by the caller's rules.
  void AddFresh(const std::string& section) {
    for (int64_t index : index_->Section(section)) {
      fresh_.try_emplace(index, placement_.DeviceFor(section, index_->KeyOf(index)));
    }
  }

  const SectionContent* FindSection(const std::string& section) const {
    for (const SectionContent& content : plan_->sections()) {
      if (content.name == section) return &content;
    }
    return nullptr;
  }

  const Client& client_;
  const std::string_view name_;
  const LoadArgs& args_;
  LoadOptions options_;
  const Deadline deadline_;  // from options_, or the default
  LoadResult& result_;
  OptimizersBySection optimizers_;
  std::map<std::string, torch::optim::LRScheduler*> schedulers_;
  Placement placement_;
  KeyRenames renames_;
  KeyPatterns non_persistent_;
  std::set<std::string> wanted_;    // sections to fetch
  std::set<std::string> returned_;  // sections that the result holds
  std::optional<LoadPlan> plan_;
  std::optional<PlanIndex> index_;
  std::vector<Match> matches_;
  std::map<int64_t, int> fresh_;             // plan position to device
  std::vector<StateEntry> entries_;          // tensors that forward() uses
  std::optional<ParameterNames> names_;      // names of the registered tensors
  std::vector<std::vector<size_t>> shared_;  // groups of positions in matches_
  std::vector<OptimizerLoad> optimizer_loads_;
  std::vector<std::pair<torch::optim::LRScheduler*, int64_t>> scheduler_steps_;
  int64_t rng_ = -1;                   // plan position of the CPU generator's state
  std::map<int, int64_t> device_rng_;  // device to plan position
  std::optional<Transfer> transfer_;
};

}  // namespace
}  // namespace torch_internal

LoadResult LoadCheckpoint(const Client& client, std::string_view name,
                          const LoadArgs& args, const LoadOptions& options) {
  LoadResult result;
  result.status = torch_internal::Guarded("loading", [&] {
    return torch_internal::Loader(client, name, args, options, result).Run();
  });
  return result;
}

}  // namespace modelstore
