// Models and checkpoints: what is told of them, and what a save stores.
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
// Its name in the protocol without ORIGIN_, such as `SAVED`; so for the enums of modify.h
// and retention.h.
std::string_view ToString(Origin origin);

// What its maker says of a version beside the content: the argument of a save, a
// modification and a copy, and of CheckpointPolicy, which decides by it.
struct CheckpointMetadata {
  // Index of the last finished epoch, and optimizer steps done.
  std::optional<int64_t> epoch = {};
  std::optional<int64_t> step = {};
  // Smaller is better.
  std::optional<double> loss = {};
  // Further figures, such as `accuracy`; at most 1024.
  std::map<std::string, double> metrics = {};
  // At most 64, their keys and values of at most 256 bytes.
  std::map<std::string, std::string> labels = {};
  // At most 4096 bytes.
  std::string description = {};
};

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
  std::optional<int64_t> latest_version;   // absent: it has none
  int64_t checkpoint_count = 0;
  int64_t logical_bytes = 0;
  int64_t stored_bytes = 0;
};

// A named part of a checkpoint beside its tensors.
struct SectionContent {
  std::string name;
  // Null: the section is the ordered dict of its tensors by key. With the metadata at
  // most 4.9 MiB as it is sent: large values belong in tensors.
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
  CheckpointMetadata metadata;
  std::string framework;
  std::string code_commit;
  // A serialized modelstore.v1.Architecture; empty: unknown. SaveCheckpoint of
  // torch.h reads it off the module.
  std::string architecture;
};

// Fields that are set are changed, labels as a whole.
struct ModelUpdate {
  std::optional<std::string> description = {};
  std::optional<std::map<std::string, std::string>> labels = {};
};

// The expire_time that takes an expiry away.
inline constexpr auto kNeverExpires = std::chrono::system_clock::time_point::max();

// Fields that are set are changed, labels as a whole; the content never is.
struct CheckpointUpdate {
  std::optional<std::string> description = {};
  std::optional<std::map<std::string, std::string>> labels = {};
  // A pinned version is never deleted.
  std::optional<bool> pinned = {};
  // After it a prune deletes the version, whatever the rules, unless it is held.
  std::optional<std::chrono::system_clock::time_point> expire_time = {};
};

}  // namespace modelstore
