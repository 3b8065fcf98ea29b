// Options of the calls in client.h: plain structs, defaults that suit a training job.
// Those of the other headers are beside their calls.
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
  // Of Connect(). Absent: 10 s after it begins.
  std::optional<Deadline> deadline = {};
  // Streams, each on a connection of its own, that one large save or load uses. Of a
  // load, and of a save that was staged so that its caller can go on, at most one per
  // two cores: each of them keeps a core busy here.
  int streams = 3;
  // A transfer that makes no progress for so long is cut and resumed.
  Timeout stall_timeout{30'000};
  // How long a cut transfer, an unreachable or an overloaded server is retried without
  // anything getting through.
  Timeout retry_timeout{120'000};
};

// Of a call that has no other options. `deadline` means the same in the options of every
// call; deadline.h tells what its absence means.
struct CallOptions {
  std::optional<Deadline> deadline = {};
};

struct CreateModelOptions {
  std::string description = {};
  std::map<std::string, std::string> labels = {};
  std::optional<Deadline> deadline = {};
};

struct ListModelsOptions {
  // Only models whose id starts so.
  std::string prefix = {};
  std::optional<Deadline> deadline = {};
};

struct DeleteModelOptions {
  // Deletes its checkpoints too. Otherwise FAILED_PRECONDITION if it has any.
  bool force = false;
  std::optional<Deadline> deadline = {};
};

struct ListCheckpointsOptions {
  // Conditions joined by AND, such as `epoch >= 10 AND metrics.accuracy > 0.9`. Each
  // compares `version`, `epoch`, `step`, `loss` or `metrics.NAME` with a number, or
  // `labels.NAME` with a string in double quotes (= !=). Empty: all.
  std::string filter = {};
  // `version` (also if empty), `version desc`, or, for models of up to 10,000 versions,
  // one of `epoch`, `step`, `loss`, `metrics.NAME`, with or without ` desc`; checkpoints
  // without it come last either way.
  std::string order_by = {};
  // 0: all.
  int limit = 0;
  std::optional<Deadline> deadline = {};
};

// What a save does when the one before it, of the same model, still runs.
enum class WhenBusy : uint8_t { kWait, kFail, kReplaceQueued };

struct SaveOptions {
  bool create_model = true;
  // Allows a version without any tensor, section, attachment and architecture, which
  // becomes the latest one. Otherwise INVALID_ARGUMENT: it is a mistake more often than
  // not.
  bool allow_empty = false;
  // Refuses with ABORTED unless this is the model's latest.
  std::optional<int64_t> expected_latest_version = {};
  // Refuses with ABORTED if the model has a version. Not with expected_latest_version.
  bool expect_no_version = false;
  // `models/{m}/checkpoints/{n}` to share chunks with; empty: the latest.
  std::string base_checkpoint = {};
  // Shares nothing and has no base. Not with base_checkpoint.
  bool no_base = false;
  // The same id never makes two versions: repeated with the same content it returns
  // the version it made, with other content INVALID_ARGUMENT. Empty: the library makes
  // one.
  std::string request_id = {};
  // Contribution of this worker, when several save one checkpoint together with
  // the same request_id. Worker 0 commits once all are complete.
  int contribution = 0;
  int contribution_count = 1;
  WhenBusy when_busy = WhenBusy::kWait;
  // Largest memory that staging may hold; a larger state is streamed, and
  // Staged() then waits for the network. What lies on devices is staged whole or
  // streamed, then by way of about 8 MiB of page-locked memory a stream. Absent: as
  // large as the state.
  std::optional<int64_t> max_staging_bytes = {};
  // Of the whole save, the time in the queue included. Once it has passed, the save is
  // cancelled. Nothing is visible then, unless the commit was already decided: the error
  // tells which is possible.
  std::optional<Deadline> deadline = {};
};

// Which tensors of a checkpoint are meant; all unless told otherwise. Names are
// `section:key`; without a section they mean `model`.
struct TensorSelection {
  // Sections to take; empty: all. See LoadArgs of torch.h for what it adds to them.
  std::vector<std::string> sections = {};
  // Whole names. A tensor is taken if keys or include name it, or if both are empty, and
  // exclude does not. NOT_FOUND, naming them, for keys that do not exist.
  std::vector<std::string> keys = {};
  // RE2 patterns, each matching a name whole. NOT_FOUND if an include pattern matches no
  // tensor; INVALID_ARGUMENT if exclude removes every tensor.
  std::vector<std::string> include = {};
  std::vector<std::string> exclude = {};
  // Permits all three.
  bool allow_unmatched = false;
};

struct LoadOptions {
  TensorSelection selection = {};
  struct RowSlice {
    std::string tensor;  // `section:key`
    int64_t begin = 0;
    int64_t end = 0;
  };
  std::vector<RowSlice> slices = {};
  // Floating-point tensors arrive in this type, cast by the server.
  std::optional<DType> target_dtype = {};
  // Where the tensors go: `cpu`, `cuda` (the current one) or `cuda:N`. LoadCheckpoint and
  // LoadModel place them there; PlanLoad leaves that to its caller, and the server
  // records it.
  std::string device = "cpu";
  // Of the planning, and of LoadCheckpoint and LoadModel as a whole. LoadPlan::Run() has
  // its own.
  std::optional<Deadline> deadline = {};
};

}  // namespace modelstore
