// Models and checkpoints: their descriptions, and the content of a save.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "modelstore/tensor.h"
#include "modelstore/value.h"

namespace modelstore {

// Named bytes beside the tensors of a checkpoint: a model card, a configuration, a
// TorchScript program.
struct Attachment {
  std::string name;        // [a-zA-Z0-9][a-zA-Z0-9._-]{0,127}
  std::string media_type;  // such as `text/markdown`; may be empty
  std::string data;
};

// An attachment without its bytes, which Client::GetAttachment() returns.
struct AttachmentInfo {
  std::string name;
  std::string media_type;
  int64_t size_bytes = 0;
  std::string digest;  // lowercase hex
};

// How a version was created.
enum class Origin : uint8_t {
  kUnknown,   // not given, or a value that this library does not know
  kSaved,     // by a save
  kModified,  // by ModifyCheckpoint from base_checkpoint
  kImported,  // from a file of another format
  kCopied,    // by CopyCheckpoint from base_checkpoint
};
// Returns the name in the protocol without its prefix, such as `SAVED` for ORIGIN_SAVED.
// The overloads in modify.h and retention.h do the same.
std::string_view ToString(Origin origin);

// Metadata that the caller gives to a version: argument of saves, modifications and
// copies, and of CheckpointPolicy::Decide().
struct CheckpointMetadata {
  // Index of the last finished epoch.
  std::optional<int64_t> epoch = {};
  // Number of optimizer steps done.
  std::optional<int64_t> step = {};
  // Smaller is better. May be NaN.
  std::optional<double> loss = {};
  // Other figures, such as `accuracy`. At most 1024; keys of at most 256 bytes.
  std::map<std::string, double> metrics = {};
  // At most 64; keys and values of at most 256 bytes.
  std::map<std::string, std::string> labels = {};
  // Free text of at most 4096 bytes.
  std::string description = {};
};

// Description of a checkpoint: one version of a model. Its content never changes.
struct CheckpointInfo {
  std::string name;  // `models/{model}/checkpoints/{version}`
  int64_t version = 0;
  std::string model_uid;  // ModelInfo::uid
  // As given by the saver; see CheckpointMetadata.
  std::optional<int64_t> epoch;
  std::optional<int64_t> step;
  std::optional<double> loss;
  std::map<std::string, double> metrics;
  std::map<std::string, std::string> labels;
  std::string description;
  Origin origin = Origin::kUnknown;
  // The version that this one was saved, modified or copied from; empty if none. It may
  // have been deleted since.
  std::string base_checkpoint;
  std::string framework;    // such as `libtorch 1.13.1`
  std::string code_commit;  // version control commit of the training code
  std::vector<std::string> sections;
  std::vector<AttachmentInfo> attachments;
  std::vector<std::string> aliases;  // their ids
  bool pinned = false;               // a pinned version is never deleted
  // After this time PruneCheckpoints() deletes the version regardless of the retention
  // policy, unless it is held. Absent: never.
  std::optional<std::chrono::system_clock::time_point> expire_time;
  std::chrono::system_clock::time_point create_time;  // time of the commit
  int64_t tensor_count = 0;                           // over all sections
  // Bytes of all tensors; tied tensors count once.
  int64_t logical_bytes = 0;
  // Bytes that this version added to the store, at most logical_bytes.
  int64_t stored_bytes = 0;
  // Of stored_bytes: chunks that the base has too, but damaged; this save replaced them.
  int64_t damaged_base_bytes = 0;
  // Lowercase hex. Versions with equal digests have equal content.
  std::string manifest_digest;
  std::string request_id;  // of the save that created it
};

// Description of a model: a named line of versions.
struct ModelInfo {
  std::string name;  // `models/{model}`
  // Given by the server. A model that is deleted and created again has another uid.
  std::string uid;
  std::string description;
  std::map<std::string, std::string> labels;
  std::map<std::string, int64_t> aliases;  // alias id to version
  std::optional<int64_t> latest_version;   // absent: the model has no version
  int64_t checkpoint_count = 0;
  // Sum of the logical_bytes of its checkpoints.
  int64_t logical_bytes = 0;
  // Bytes in the store that its checkpoints added and still use.
  int64_t stored_bytes = 0;
};

// The values of a named part of a checkpoint, such as `optimizer`, without tensor bytes.
struct SectionContent {
  std::string name;
  // The tree of values, which refers to tensors by key. Null: the section is a plain dict
  // of its tensors, in order. Value and metadata together are at most 4.9 MiB when
  // serialized; store large values as tensors.
  Value value;
  // PyTorch's `_metadata` of a state dict; null if there is none.
  Value metadata;
};

// The content of one save.
struct SaveContent {
  std::vector<TensorView> tensors;
  std::vector<SectionContent> sections;
  // At most 4 MiB each and 16 MiB in all.
  std::vector<Attachment> attachments;
  CheckpointMetadata metadata;
  // See CheckpointInfo. At most 4096 bytes each.
  std::string framework;
  std::string code_commit;
  // A serialized modelstore.v1.Architecture; empty: unknown. SaveCheckpoint (torch.h)
  // derives it from the module.
  std::string architecture;
};

// Changes to a model. Only fields that are set change; `labels` replaces all labels.
struct ModelUpdate {
  std::optional<std::string> description = {};
  std::optional<std::map<std::string, std::string>> labels = {};
};

// The value of CheckpointUpdate::expire_time that removes an expiry.
inline constexpr auto kNeverExpires = std::chrono::system_clock::time_point::max();

// Changes to a checkpoint's metadata. Only fields that are set change; `labels` replaces
// all labels.
struct CheckpointUpdate {
  std::optional<std::string> description = {};
  std::optional<std::map<std::string, std::string>> labels = {};
  // A pinned version is never deleted.
  std::optional<bool> pinned = {};
  // See CheckpointInfo::expire_time.
  std::optional<std::chrono::system_clock::time_point> expire_time = {};
};

}  // namespace modelstore
