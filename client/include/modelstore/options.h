// Options of the calls in client.h: plain structs with defaults for a training job.
// Options of other calls are declared in the header of the call.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "modelstore/deadline.h"
#include "modelstore/tensor.h"

namespace modelstore {

struct ConnectOptions {
  // Deadline of Connect(). Absent: 10 s after the call starts.
  std::optional<Deadline> deadline = {};
  // Maximum number of streams of one large save or load, 1 to 64. Each has its own
  // connection. A load, and a save whose caller continues after staging, uses at most one
  // stream per two cores, because each stream keeps a core busy.
  int streams = 3;
  // A transfer without progress for this long is aborted and resumed.
  Timeout stall_timeout{30'000};
  // How long to retry without progress while the server is unreachable or overloaded.
  Timeout retry_timeout{120'000};
};

// Options of calls that have no others. `deadline` has the same meaning for every call;
// deadline.h describes the default.
struct CallOptions {
  std::optional<Deadline> deadline = {};
};

struct CreateModelOptions {
  std::string description = {};
  std::map<std::string, std::string> labels = {};
  std::optional<Deadline> deadline = {};
};

struct ListModelsOptions {
  // Lists only models whose id starts with this prefix.
  std::string prefix = {};
  std::optional<Deadline> deadline = {};
};

struct DeleteModelOptions {
  // Also deletes the model's checkpoints and uploads. If false, a model with checkpoints
  // is FAILED_PRECONDITION.
  bool force = false;
  std::optional<Deadline> deadline = {};
};

struct ListCheckpointsOptions {
  // Conditions joined by AND, such as `epoch >= 10 AND metrics.accuracy > 0.9`. Each
  // compares `version`, `epoch`, `step`, `loss` or `metrics.NAME` with a number, or
  // `labels.NAME` with a string in double quotes (= !=). A number that is absent or NaN
  // satisfies no condition. Empty: all checkpoints.
  std::string filter = {};
  // `version` (the default) or `version desc`. For models of up to 10,000 versions also
  // `epoch`, `step`, `loss` or `metrics.NAME`, optionally followed by ` desc`;
  // checkpoints without that field come last in both directions.
  std::string order_by = {};
  // Maximum number of checkpoints; 0: all.
  int limit = 0;
  std::optional<Deadline> deadline = {};
};

// What a save does if an earlier save of the same client and model still runs:
//   kWait           waits in a queue until the earlier saves have ended
//   kFail           fails with FAILED_PRECONDITION
//   kReplaceQueued  cancels the saves that wait in the queue (CANCELLED) and takes their
//                   place; the running save continues
enum class WhenBusy : uint8_t { kWait, kFail, kReplaceQueued };

struct SaveOptions {
  // Creates the model if it does not exist. If false, NOT_FOUND.
  bool create_model = true;
  // Allows a version without any tensor, section, attachment and architecture. If false,
  // such a save is INVALID_ARGUMENT, because it is usually a mistake.
  bool allow_empty = false;
  // Fails with ABORTED unless this is the model's latest version.
  std::optional<int64_t> expected_latest_version = {};
  // Fails with ABORTED if the model has a version. Not together with
  // expected_latest_version.
  bool expect_no_version = false;
  // The version to share chunks with, `models/{model}/checkpoints/{version}`. Recorded as
  // the new version's base. Empty: the model's latest version.
  std::string base_checkpoint = {};
  // Shares no chunks and records no base. Not together with base_checkpoint.
  bool no_base = false;
  // Makes the save idempotent. A save with a request_id that has already created a
  // version returns that version if the content is equal, and INVALID_ARGUMENT otherwise.
  // Empty: the library generates one.
  std::string request_id = {};
  // Index of this worker if several workers save one checkpoint together, with the same
  // request_id, and their number. Worker 0 commits once all contributions are complete.
  int contribution = 0;
  int contribution_count = 1;
  WhenBusy when_busy = WhenBusy::kWait;
  // Maximum size of the staging memory. A larger state is sent while it is staged, so
  // that Staged() waits for the network. Tensors on devices are either all staged or all
  // streamed; streaming uses about 8 MiB of page-locked memory a stream. Absent: as large
  // as the state.
  std::optional<int64_t> max_staging_bytes = {};
  // Deadline of the whole save, including time in the queue. Once it has passed, the save
  // is cancelled and leaves no version, unless the commit had already been decided; the
  // error says whether that is possible.
  std::optional<Deadline> deadline = {};
};

// Selects tensors of a checkpoint; by default all. Names are `section:key`; a name
// without a section refers to section `model`.
struct TensorSelection {
  // Sections to select from; empty: all. LoadArgs (torch.h) adds the sections that its
  // members need.
  std::vector<std::string> sections = {};
  // A tensor is selected if `keys` or `include` selects it, or if both are empty, and
  // `exclude` does not match it. `keys` are full names; NOT_FOUND, naming them, for keys
  // that do not exist.
  std::vector<std::string> keys = {};
  // RE2 patterns that must match the whole name. NOT_FOUND if an include pattern matches
  // no tensor; INVALID_ARGUMENT if exclude removes every tensor.
  std::vector<std::string> include = {};
  std::vector<std::string> exclude = {};
  // Suppresses these three errors.
  bool allow_unmatched = false;
};

struct LoadOptions {
  TensorSelection selection = {};
  // Rows [begin, end) of the first dimension of a tensor.
  struct RowSlice {
    std::string tensor;  // `section:key`
    int64_t begin = 0;
    int64_t end = 0;
  };
  // Loads only these rows of the tensors that are listed.
  std::vector<RowSlice> slices = {};
  // Type of the floating-point tensors that are loaded; the server casts them. Absent: as
  // stored.
  std::optional<DType> target_dtype = {};
  // Device of the loaded tensors: `cpu`, `cuda` (the current GPU) or `cuda:N`.
  // LoadCheckpoint and LoadModel place tensors there. With PlanLoad the caller does; the
  // server only records the device.
  std::string device = "cpu";
  // Deadline of PlanLoad, or of the whole LoadCheckpoint or LoadModel. LoadPlan::Run()
  // has its own deadline.
  std::optional<Deadline> deadline = {};
};

}  // namespace modelstore
