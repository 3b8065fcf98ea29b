// Resource names: building and parsing. Every name that a client sends passes
// through here; nothing of it ever becomes a path on disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace modelstore {

// `models/{model}/checkpoints/{version}`; the version is a number (> 0), an
// alias, or `latest`.
struct CheckpointName {
  std::string model_id;
  // Set when the last part is a number.
  std::optional<int64_t> version;
  // The last part when it is none: `latest` or an alias.
  std::string alias;

  bool IsLatest() const { return alias == "latest"; }
};

struct UploadName {
  std::string model_id;
  std::string upload_id;
};

struct AliasName {
  std::string model_id;
  std::string alias;
};

struct LeaseName {
  std::string model_id;
  int64_t version = 0;
  std::string holder;
};

// The name of one tensor: (section, key).
struct TensorName {
  std::string section;
  std::string key;

  friend bool operator==(const TensorName&, const TensorName&) = default;
};

// Each returns InvalidArgument with a BadRequest detail naming `field` when the
// text is malformed. Parsing does not look anything up.
absl::Status ValidateModelId(absl::string_view field, absl::string_view id);
absl::Status ValidateSectionId(absl::string_view field, absl::string_view id);
absl::Status ValidateAlias(absl::string_view field, absl::string_view alias);
// Key: 1 to 1024 bytes of UTF-8 without control characters.
absl::Status ValidateKey(absl::string_view field, absl::string_view key);
// Request id: empty or at most 128 printable ASCII bytes.
absl::Status ValidateRequestId(absl::string_view field, absl::string_view id);
// Holder of a lease: [a-zA-Z0-9][a-zA-Z0-9._:@-]{0,127}.
absl::Status ValidateHolder(absl::string_view field, absl::string_view holder);

// Returns the model id of `models/{model}`.
absl::StatusOr<std::string> ParseModelName(absl::string_view field,
                                           absl::string_view name);
absl::StatusOr<CheckpointName> ParseCheckpointName(absl::string_view field,
                                                   absl::string_view name);
absl::StatusOr<UploadName> ParseUploadName(absl::string_view field,
                                           absl::string_view name);
absl::StatusOr<AliasName> ParseAliasName(absl::string_view field, absl::string_view name);
// `models/{model}/checkpoints/{version}/leases/{holder}`, the version a number.
absl::StatusOr<LeaseName> ParseLeaseName(absl::string_view field, absl::string_view name);
// `section:key`; without a section, `model`. The first `:` after a valid
// section id separates; `model:a:b` is the key `a:b`.
TensorName ParseTensorName(absl::string_view text);

std::string ModelName(absl::string_view model_id);
std::string CheckpointNameOf(absl::string_view model_id, int64_t version);
std::string UploadNameOf(absl::string_view model_id, absl::string_view upload_id);
std::string AliasNameOf(absl::string_view model_id, absl::string_view alias);
std::string LeaseNameOf(absl::string_view model_id, int64_t version,
                        absl::string_view holder);
std::string TensorNameOf(absl::string_view section, absl::string_view key);

// One element of a key's path: `~` becomes `~0`, `/` becomes `~1`.
std::string EscapeKeyElement(absl::string_view element);
absl::StatusOr<std::string> UnescapeKeyElement(absl::string_view element);

// `cpu`, `cuda`, `cuda:N`, else InvalidArgument naming `field`. Empty is `cpu`.
absl::Status ValidateDevice(absl::string_view field, absl::string_view device);

}  // namespace modelstore
