// Retention: rules for which versions of a model to keep, and deletion of the others.
//
//   modelstore::RetentionPolicy policy{.keep_latest = 3, .keep_best = 2,
//                                      .metric = "accuracy", .maximize = true};
//   absl::Status s = modelstore::SetRetentionPolicy(client, "models/iris", policy);
//   auto pruned = modelstore::PruneCheckpoints(client, "models/iris");
//   // pruned->pruned_versions, pruned->freed_bytes, pruned->waiting_bytes
//
// The server applies the rules, so that all jobs and administrators get the same result.
//
// Thread safety: as Client.
// Errors: INVALID_ARGUMENT names the field of an invalid rule (a negative number,
// keep_best without metric). FAILED_PRECONDITION if no version has the metric of
// keep_best and versions that have not expired would be deleted. NOT_FOUND if the model
// does not exist or is deleted during the call.
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

// A version is kept if any rule keeps it. 0 disables a rule. The newest version, and
// versions held by an alias, a pin, a lease or an open upload, are always kept. Without
// any rule only expired versions are deleted.
struct RetentionPolicy {
  // Keeps the newest N versions.
  int32_t keep_latest = 0;
  // Keeps the best N versions by `metric`; the newer of equal ones. Versions without the
  // metric cannot be ranked and are kept in addition, unless prune_unranked.
  int32_t keep_best = 0;
  // `loss` or the name of a metric, at most 256 bytes.
  std::string metric = {};
  // True: larger is better (accuracy). False: smaller is better (loss).
  bool maximize = false;
  // Keeps versions whose step is a multiple of N. Also keeps versions without a step,
  // unless prune_unranked.
  int64_t keep_every_steps = 0;
  // Keeps versions committed within this time.
  Timeout keep_younger_than{0};
  // keep_best does not keep versions without the metric, and keep_every_steps does not
  // keep versions without a step.
  bool prune_unranked = false;
};

// Sets the stored policy of a model, which PruneCheckpoints() applies. A policy without
// rules removes it. `model` is `models/{model}`. The server never prunes by itself.
absl::Status SetRetentionPolicy(const Client& client, std::string_view model,
                                const RetentionPolicy& policy,
                                const CallOptions& options = {});
absl::StatusOr<RetentionPolicy> GetRetentionPolicy(const Client& client,
                                                   std::string_view model,
                                                   const CallOptions& options = {});

struct PruneOptions {
  // Policy of this call only; absent: the model's stored policy.
  std::optional<RetentionPolicy> policy = {};
  // Reports which versions would be deleted without deleting them. Byte counts are 0.
  bool validate_only = false;
  std::optional<Deadline> deadline = {};
};

// The decision about one version.
struct PruneDecision {
  // kKept: kept by a rule. kPruned: deleted. kHeld: no rule keeps it, but an alias, a
  // pin, a lease or an open upload does.
  enum class Outcome : uint8_t { kUnknown, kKept, kPruned, kHeld };
  enum class Rule : uint8_t {
    kUnknown,     // a rule that this library does not know
    kNewest,      // newest version of the model
    kLatest,      // keep_latest
    kBest,        // keep_best
    kUnranked,    // lacks the metric or the step
    kEverySteps,  // keep_every_steps
    kYounger,     // keep_younger_than
    kNoRules,     // the policy has no rules
    kExpired,     // its expire_time has passed: deleted
    kChanged,     // the version changed during the call
  };
  int64_t version = 0;
  Outcome outcome = Outcome::kUnknown;
  // All rules that keep the version. Of a version that is deleted: kExpired or empty.
  std::vector<Rule> rules;
};
std::string_view ToString(PruneDecision::Outcome outcome);
std::string_view ToString(PruneDecision::Rule rule);

struct PruneResult {
  // Ascending; at most the first 100,000, while `decisions` has all.
  std::vector<int64_t> pruned_versions;
  // Versions with Outcome::kHeld, likewise.
  std::vector<int64_t> held_versions;
  int64_t kept_count = 0;
  // Disk space freed.
  int64_t freed_bytes = 0;
  // Disk space to be freed later: it waits for running loads, for the grace time, or for
  // the other chunks of a pack to be copied.
  int64_t waiting_bytes = 0;
  // One for every version, ascending.
  std::vector<PruneDecision> decisions = {};
};

// Deletes the versions of `model`, `models/{model}`, that no rule keeps and nothing
// holds. Each version is deleted separately: if the call fails, versions already deleted
// are not restored. Retried after temporary failures; the result then covers the last
// attempt only.
absl::StatusOr<PruneResult> PruneCheckpoints(const Client& client, std::string_view model,
                                             const PruneOptions& options = {});

}  // namespace modelstore
