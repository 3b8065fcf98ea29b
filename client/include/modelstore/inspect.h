// Looks into stored checkpoints without loading them: is every byte still right, and
// how do two versions differ. The server reads; a report comes back.
//
//   auto report = modelstore::VerifyCheckpoint(client, saved->name);
//   if (report.ok() && !report->intact()) ... report->findings names the tensors
//
// Performance: bounded by the server's disk or memory; nothing but reports crosses the
// network. Memory: the report, which is as long as there are tensors to name.
// Thread safety: free functions over a Client, from any thread.
// Errors: NOT_FOUND, INVALID_ARGUMENT for a pattern that does not compile, DATA_LOSS
// for a list of tensors that is damaged itself, DEADLINE_EXCEEDED. A call that is cut
// is begun anew until ConnectOptions.retry_timeout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/client.h"
#include "modelstore/options.h"
#include "modelstore/tensor.h"

namespace modelstore {

struct VerifyOptions {
  TensorSelection selection = {};
  // Counts NaN and infinite elements too, as torch.isnan() and torch.isinf() tell them.
  bool count_non_finite = false;
  // The server reads no faster; 0: as fast as it goes.
  int64_t max_bytes_per_second = 0;
  std::optional<Deadline> deadline = {};
};

// A tensor that something is to be said about.
struct TensorFinding {
  std::string tensor;  // `section:key`
  std::string damage;  // empty: every byte of it is right
  int64_t damaged_bytes = 0;
  // A complex element counts once; those of damaged chunks do not.
  int64_t nan_count = 0;
  int64_t infinity_count = 0;
};

struct VerifyReport {
  std::string checkpoint;  // `models/{model}/checkpoints/{version}`
  int64_t verified_tensors = 0;
  int64_t verified_bytes = 0;
  int64_t damaged_tensors = 0;
  int64_t nan_count = 0;
  int64_t infinity_count = 0;
  std::vector<TensorFinding> findings;

  // Every byte is as it was saved.
  bool intact() const { return damaged_tensors == 0; }
};

// Reads every byte on the server and compares it with its digest. Damage is a
// finding, not an error. `name` ends in a version, an alias or `latest`.
absl::StatusOr<VerifyReport> VerifyCheckpoint(const Client& client, std::string_view name,
                                              const VerifyOptions& options = {});

struct CompareOptions {
  TensorSelection selection = {};
  // Measures by how much tensors differ, which reads them; else digests decide.
  bool with_norms = false;
  std::optional<Deadline> deadline = {};
};

// The first of these that holds.
enum class DifferenceKind : uint8_t {
  kUnknown,  // of a newer server
  kAdded,
  kRemoved,
  kShape,
  kDType,
  kContent,
};

struct TensorDifference {
  std::string tensor;  // `section:key`
  DifferenceKind kind = DifferenceKind::kUnknown;
  // Of the first and of the other checkpoint; unset on the side that lacks it.
  std::optional<DType> dtype;
  std::optional<DType> other_dtype;
  std::vector<int64_t> shape;
  std::vector<int64_t> other_shape;

  // In float64; set for kContent and kDType with with_norms. Elements that are NaN on
  // both sides are equal, those on one side are counted apart and left out of the sums.
  struct Measure {
    double max_abs_difference = 0;
    double difference_norm = 0;  // L2: torch.linalg.vector_norm(a - b)
    double norm = 0;             // of the first one
    int64_t differing_elements = 0;
    int64_t nan_differences = 0;
  };
  std::optional<Measure> measure;
};

struct CompareReport {
  std::string checkpoint;
  std::string other;
  // The same content to the last bit, values and attachments included.
  bool identical = false;
  int64_t equal_tensors = 0;
  int64_t different_tensors = 0;
  int64_t added_tensors = 0;
  int64_t removed_tensors = 0;
  // Sections whose values, beside their tensors, differ.
  std::vector<std::string> different_sections;
  bool different_architecture = false;
  // In order of the first checkpoint's table; what only the other has after them.
  std::vector<TensorDifference> differences;
};

// `name` and `other` may be versions of different models.
absl::StatusOr<CompareReport> CompareCheckpoints(const Client& client,
                                                 std::string_view name,
                                                 std::string_view other,
                                                 const CompareOptions& options = {});

}  // namespace modelstore
