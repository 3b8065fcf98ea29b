// Inspects stored checkpoints without loading them: VerifyCheckpoint checks every byte,
// CompareCheckpoints compares two versions. The server reads the data and returns a
// report.
//
//   auto report = modelstore::VerifyCheckpoint(client, saved->name);
//   if (report.ok() && !report->intact()) ... report->findings names the tensors
//
// Performance: limited by the server's disk or memory bandwidth; only reports are sent
// over the network. Memory: the report, which grows with the number of tensors in it.
// Thread safety: free functions over a Client, from any thread.
// Errors: NOT_FOUND, INVALID_ARGUMENT for a pattern that does not compile, DATA_LOSS
// if the checkpoint's list of tensors is damaged, DEADLINE_EXCEEDED.
// Retries: a broken call starts over, until ConnectOptions.retry_timeout.
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
  // Also counts NaN and infinite elements, as defined by torch.isnan() and torch.isinf().
  bool count_non_finite = false;
  // Maximum read rate of the server; 0: unlimited.
  int64_t max_bytes_per_second = 0;
  std::optional<Deadline> deadline = {};
};

// A tensor that is damaged or has elements that are not finite.
struct TensorFinding {
  std::string tensor;  // `section:key`
  std::string damage;  // for people; empty: not damaged
  int64_t damaged_bytes = 0;
  // With count_non_finite. A complex element counts once. Elements in damaged chunks are
  // not counted.
  int64_t nan_count = 0;
  int64_t infinity_count = 0;
};

struct VerifyReport {
  std::string checkpoint;  // `models/{model}/checkpoints/{version}`
  int64_t verified_tensors = 0;
  int64_t verified_bytes = 0;
  int64_t damaged_tensors = 0;
  // Sums over all tensors, with count_non_finite.
  int64_t nan_count = 0;
  int64_t infinity_count = 0;
  std::vector<TensorFinding> findings;

  // True if every byte is as it was saved.
  bool intact() const { return damaged_tensors == 0; }
};

// Reads the selected tensors on the server and compares them with their digests. Damage
// is a finding, not an error. `name` ends in a version, an alias or `latest`.
absl::StatusOr<VerifyReport> VerifyCheckpoint(const Client& client, std::string_view name,
                                              const VerifyOptions& options = {});

struct CompareOptions {
  TensorSelection selection = {};
  // Measures the differences, which reads every tensor that differs. Otherwise digests
  // are compared and few bytes are read.
  bool with_norms = false;
  std::optional<Deadline> deadline = {};
};

// How a tensor differs. If several apply, the first of them.
enum class DifferenceKind : uint8_t {
  kUnknown,  // a kind that this library does not know
  kAdded,    // only in the other checkpoint
  kRemoved,  // only in the first checkpoint
  kShape,
  kDType,    // same shape
  kContent,  // same shape and dtype
};

struct TensorDifference {
  std::string tensor;  // `section:key`
  DifferenceKind kind = DifferenceKind::kUnknown;
  // In the first and in the other checkpoint; absent or empty where it does not exist.
  std::optional<DType> dtype;
  std::optional<DType> other_dtype;
  std::vector<int64_t> shape;
  std::vector<int64_t> other_shape;

  // Computed in float64. Set for kContent and kDType if with_norms. Elements that are NaN
  // on both sides are equal. Those that are NaN on one side are counted in
  // nan_differences and excluded from the norms.
  struct Measure {
    double max_abs_difference = 0;
    double difference_norm = 0;      // L2: torch.linalg.vector_norm(a - b)
    double norm = 0;                 // L2, of the tensor in the first checkpoint
    int64_t differing_elements = 0;  // not equal as numbers: 0 and -0 are equal
    int64_t nan_differences = 0;
  };
  std::optional<Measure> measure;
};

struct CompareReport {
  // Canonical names of the first and of the other checkpoint.
  std::string checkpoint;
  std::string other;
  // All content is equal bit for bit, including values and attachments.
  bool identical = false;
  int64_t equal_tensors = 0;
  int64_t different_tensors = 0;
  int64_t added_tensors = 0;
  int64_t removed_tensors = 0;
  // Sections whose values, apart from tensors, differ.
  std::vector<std::string> different_sections;
  bool different_architecture = false;
  // In the first checkpoint's order; then the tensors that only the other one has.
  std::vector<TensorDifference> differences;
};

// Compares two versions, of the same or of different models. `name` is the first and
// `other` the other checkpoint; each ends in a version, an alias or `latest`.
absl::StatusOr<CompareReport> CompareCheckpoints(const Client& client,
                                                 std::string_view name,
                                                 std::string_view other,
                                                 const CompareOptions& options = {});

}  // namespace modelstore
