// Options and results of the client library: plain structs, defaults that suit a
// training job.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "modelstore/deadline.h"
#include "modelstore/tensor.h"
#include "modelstore/value.h"

namespace modelstore {

struct ConnectOptions {
  // How long Connect() may take to reach the server.
  Timeout connect_timeout{10'000};
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

// Named bytes beside the tensors of a checkpoint: a model card, a configuration, a
// TorchScript program.
struct Attachment {
  std::string name;        // [a-zA-Z0-9][a-zA-Z0-9._-]{0,127}
  std::string media_type;  // such as `text/markdown`; may be empty
  std::string data;
};

// An attachment without its bytes: Client::GetAttachment() gives them.
struct AttachmentInfo {
  std::string name;
  std::string media_type;
  int64_t size_bytes = 0;
  std::string digest;  // lowercase hex
};

// How a version came to be.
enum class Origin : uint8_t {
  kUnknown,   // the server tells none, or one that this library does not know
  kSaved,     // by a save
  kModified,  // by ModifyCheckpoint from base_checkpoint
  kImported,  // from a file of another format
  kCopied,    // by CopyCheckpoint from base_checkpoint
};
// Its name in the protocol, such as `SAVED`; so for the enums of modify.h and
// retention.h.
std::string_view ToString(Origin origin);

// One immutable version of a model. modelstore.v1.Checkpoint tells each field.
struct CheckpointInfo {
  std::string name;  // `models/{model}/checkpoints/{version}`
  int64_t version = 0;
  std::string model_uid;
  std::optional<int64_t> epoch;
  std::optional<int64_t> step;
  std::optional<double> loss;
  std::map<std::string, double> metrics;
  std::map<std::string, std::string> labels;
  std::string description;
  Origin origin = Origin::kUnknown;
  std::string base_checkpoint;
  std::string framework;
  std::string code_commit;
  std::vector<std::string> sections;
  std::vector<AttachmentInfo> attachments;
  std::vector<std::string> aliases;  // their ids
  bool pinned = false;
  // When a prune deletes it, whatever the rules, unless it is held.
  std::optional<std::chrono::system_clock::time_point> expire_time;
  std::chrono::system_clock::time_point create_time;
  int64_t tensor_count = 0;
  int64_t logical_bytes = 0;
  int64_t stored_bytes = 0;
  // Of these: chunks that the base has too, but damaged, stored anew by this save.
  int64_t damaged_base_bytes = 0;
  std::string manifest_digest;
  std::string request_id;
};

struct ModelInfo {
  std::string name;  // `models/{model}`
  std::string uid;
  std::string description;
  std::map<std::string, std::string> labels;
  std::map<std::string, int64_t> aliases;  // their ids, and what they name
  int64_t latest_version = 0;
  int64_t checkpoint_count = 0;
  int64_t logical_bytes = 0;
  int64_t stored_bytes = 0;
};

// A named part of a checkpoint beside its tensors.
struct SectionContent {
  std::string name;
  // Null: the section is the ordered dict of its tensors by key.
  Value value;
  // PyTorch's `_metadata`; null if there is none.
  Value metadata;
};

// Everything that one save stores.
struct SaveContent {
  std::vector<TensorView> tensors;
  std::vector<SectionContent> sections;
  // At most 4 MiB each and 16 MiB in all.
  std::vector<Attachment> attachments;
  std::optional<int64_t> epoch;
  std::optional<int64_t> step;
  std::optional<double> loss;
  std::map<std::string, double> metrics;
  std::map<std::string, std::string> labels;
  std::string description;
  std::string framework;
  std::string code_commit;
  // A serialized modelstore.v1.Architecture; empty: unknown. SaveCheckpoint of
  // torch.h reads it off the module.
  std::string architecture;
};

// What a save does when the one before it, of the same model, still runs.
enum class WhenBusy : uint8_t { kWait, kFail, kReplaceQueued };

struct SaveOptions {
  bool create_model = true;
  // Allows a version without any tensor, section, attachment and architecture, which
  // becomes the latest one. Otherwise INVALID_ARGUMENT: it is a mistake more often than
  // not.
  bool allow_empty = false;
  // Refuses with ABORTED unless this is the model's latest; 0: it has none.
  std::optional<int64_t> expected_latest_version;
  // `models/{m}/checkpoints/{n}` to share chunks with; empty: the latest;
  // `none`: nothing is shared.
  std::string base_checkpoint;
  // The same id never makes two versions: repeated with the same content it returns
  // the version it made, with other content INVALID_ARGUMENT. Empty: the library makes
  // one.
  std::string request_id;
  // Contribution of this worker, when several save one checkpoint together with
  // the same request_id. Worker 0 commits once all are complete.
  int contribution = 0;
  int contribution_count = 1;
  WhenBusy when_busy = WhenBusy::kWait;
  // Largest memory that staging may hold; a larger state is streamed, and
  // Staged() then waits for the network. What lies on devices is staged whole or
  // streamed, then by way of about 8 MiB of page-locked memory a stream. Absent: as
  // large as the state.
  std::optional<int64_t> max_staging_bytes;
  // Of the whole save, which is cancelled when it is over. Nothing is visible then,
  // unless the commit was already decided: the error tells which is possible.
  Timeout timeout{3'600'000};
};

// How far a save or load has come. Taken at any time, from any thread.
struct Progress {
  int64_t total_bytes = 0;
  int64_t done_bytes = 0;         // of total_bytes: deduplicated ones included
  int64_t transferred_bytes = 0;  // that crossed the wire
  int64_t reconnects = 0;
};

struct LoadOptions {
  // Sections to take; empty: all.
  std::vector<std::string> sections;
  // RE2 patterns over `section:key`, matched whole by the server. NOT_FOUND if an include
  // pattern matches no tensor; INVALID_ARGUMENT if exclude removes every tensor.
  // allow_unmatched permits both.
  std::vector<std::string> include;
  std::vector<std::string> exclude;
  bool allow_unmatched = false;
  struct RowSlice {
    std::string tensor;  // `section:key`
    int64_t begin = 0;
    int64_t end = 0;
  };
  std::vector<RowSlice> slices;
  // Floating-point tensors arrive in this type, cast by the server.
  std::optional<DType> target_dtype;
  // Recorded by the server; placing is done by the caller of PlanLoad.
  std::string device = "cpu";
  Timeout timeout{3'600'000};
};

}  // namespace modelstore
