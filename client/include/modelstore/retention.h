// Which versions of a model are worth keeping, and deleting the others.
//
//   modelstore::RetentionPolicy policy{.keep_latest = 3, .keep_best = 2,
//                                      .metric = "accuracy", .maximize = true};
//   absl::Status s = modelstore::SetRetentionPolicy(client, "models/iris", policy);
//   auto pruned = modelstore::PruneCheckpoints(client, "models/iris");
//   // pruned->pruned_versions, pruned->freed_bytes, pruned->waiting_bytes
//
// The server counts, so that every job and every administrator mean the same
// versions. PyTorch has nothing of the kind: its users delete files by hand.
//
// Thread safety: as Client. Errors: INVALID_ARGUMENT names the field of a rule that
// makes no sense (a negative number, keep_best without metric); FAILED_PRECONDITION: no
// version has the metric of keep_best, and more than what has expired would go;
// NOT_FOUND: no such model, also when it was deleted while the call ran.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/client.h"
#include "modelstore/options.h"

namespace modelstore {

// Any rule keeps; 0 is no rule. The newest version, and what an alias, a pin, a lease
// or an open upload holds, stay whatever the rules. Without any rule nothing goes but
// what has expired.
struct RetentionPolicy {
  int32_t keep_latest = 0;
  // The best so many by `metric`; of equal ones the newer. Versions without the metric
  // cannot be ranked and are kept beside them, unless prune_unranked.
  int32_t keep_best = 0;
  // `loss`, or one of the metrics; at most 256 bytes.
  std::string metric = {};
  // Larger is better (accuracy). Otherwise smaller is (loss).
  bool maximize = false;
  // Versions whose step is a multiple of it; those without a step too, unless
  // prune_unranked.
  int64_t keep_every_steps = 0;
  // By the time of their commit.
  Timeout keep_younger_than{0};
  // keep_best does not keep versions that lack the metric, nor keep_every_steps those
  // that lack a step.
  bool prune_unranked = false;
};

// The model's own policy, which PruneCheckpoints() goes by; a policy without rules
// takes it away. `model` is `models/{model}`. The server does not prune by itself.
absl::Status SetRetentionPolicy(const Client& client, std::string_view model,
                                const RetentionPolicy& policy,
                                const CallOptions& options = {});
absl::StatusOr<RetentionPolicy> GetRetentionPolicy(const Client& client,
                                                   std::string_view model,
                                                   const CallOptions& options = {});

struct PruneOptions {
  // For this call alone; absent: the model's own.
  std::optional<RetentionPolicy> policy = {};
  // A dry run: tells which versions would go, not their bytes.
  bool validate_only = false;
  std::optional<Deadline> deadline = {};
};

// What became of one version, or would.
struct PruneDecision {
  enum class Outcome : uint8_t { kUnknown, kKept, kPruned, kHeld };
  enum class Rule : uint8_t {
    kUnknown,     // one that this library does not know
    kNewest,      // of the model
    kLatest,      // among keep_latest
    kBest,        // among keep_best
    kUnranked,    // without the metric or the step
    kEverySteps,  // of keep_every_steps
    kYounger,     // than keep_younger_than
    kNoRules,     // there are none
    kExpired,     // its expire_time has passed: it goes
    kChanged,     // since the call began
  };
  int64_t version = 0;
  Outcome outcome = Outcome::kUnknown;
  // All that keep it. Of one that goes kExpired, or none: nothing keeps it.
  std::vector<Rule> rules;
};
std::string_view ToString(PruneDecision::Outcome outcome);
std::string_view ToString(PruneDecision::Rule rule);

struct PruneResult {
  // Ascending.
  std::vector<int64_t> pruned_versions;
  // That no rule keeps, and that an alias, pin, lease or open upload held.
  std::vector<int64_t> held_versions;
  int64_t kept_count = 0;
  // Gone from the server's disk; and dead, waiting for running loads, for the grace
  // time, or for the rest of their pack to be copied forward.
  int64_t freed_bytes = 0;
  int64_t waiting_bytes = 0;
  // Of every version, ascending.
  std::vector<PruneDecision> decisions = {};
};

// Each version is deleted on its own: cut off, what is gone is gone. Repeated by
// itself after a passing failure; then pruned_versions are those of the last attempt.
absl::StatusOr<PruneResult> PruneCheckpoints(const Client& client, std::string_view model,
                                             const PruneOptions& options = {});

}  // namespace modelstore
