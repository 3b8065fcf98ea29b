// Joins the parts of a manifest and builds what a commit writes: pages with the places
// of all chunks, the digest, the summaries.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"
#include "storage/manifest_cache.h"

namespace modelstore::storage {

struct PackUse {
  int64_t used_bytes = 0;
};

struct BuiltManifest {
  std::vector<std::string> pages;
  int64_t page_bytes = 0;
  // Over the content alone: not over the places of chunks.
  std::string digest;
  int64_t tensor_count = 0;
  int64_t logical_bytes = 0;
  std::vector<v1::SectionRecord> sections;  // without values
  std::vector<v1::AttachmentSummary> attachments;
  std::map<uint64_t, PackUse> packs;
  // Packs and sequences of all chunks that it names.
  absl::flat_hash_set<std::pair<uint64_t, uint32_t>> chunks;
};

// Used by one thread.
class ManifestBuilder {
 public:
  using FindChunk = absl::FunctionRef<std::optional<HeldChunk>(const Digest&)>;
  // DATA_LOSS if the chunk is gone or does not match the digest.
  using ReadChunk =
      absl::FunctionRef<absl::StatusOr<PinnedBytes>(ChunkId, const Digest&)>;

  explicit ManifestBuilder(DigestAlgorithm algorithm) : algorithm_(algorithm) {}

  // Adds a part that CheckManifestPart() has accepted. A tensor that was added
  // before gets further pieces. INVALID_ARGUMENT if the two differ in dtype,
  // shape or tie; if a section or attachment is repeated with other content; if
  // a tie does not refer to an earlier tensor of the same kind; above kMaxSections or
  // kMaxAttachments.
  absl::Status Add(v1::ManifestPage part);

  // The parts so far; callers may fill in digests.
  v1::ManifestPage& manifest() { return manifest_; }

  // FAILED_PRECONDITION, naming tensors, if boxes leave a gap or `find` does not find
  // a chunk; INVALID_ARGUMENT if boxes overlap with other bytes, a chunk has another
  // size than its place, a tensor of bools has a byte other than 0 and 1, or a section
  // names a tensor that it does not have. `read` reads a chunk that is not known to
  // hold only bools; if it returns DATA_LOSS, Build() returns UNAVAILABLE. To be called
  // once.
  absl::StatusOr<BuiltManifest> Build(FindChunk find, ReadChunk read);

 private:
  absl::Status AddTensor(v1::TensorRecord tensor);
  absl::Status AddSection(v1::SectionRecord section);
  absl::Status AddAttachment(v1::AttachmentRecord attachment);
  absl::Status CheckCounts() const;
  absl::Status CheckNamedTensors();
  absl::Status Tile(v1::TensorRecord& tensor, std::vector<std::string>& gaps) const;
  absl::Status Locate(v1::TensorRecord& tensor, FindChunk find, ReadChunk read,
                      std::vector<std::string>& missing, BuiltManifest& built);
  absl::Status CheckBools(const v1::TensorRecord& tensor, int64_t index,
                          const HeldChunk& chunk, const Digest& digest, ReadChunk read);
  void CountSections(BuiltManifest& built);
  void CountPackUses(BuiltManifest& built) const;
  std::string ContentDigest() const;
  void Paginate(BuiltManifest& built);

  const DigestAlgorithm algorithm_;
  v1::ManifestPage manifest_;
  absl::flat_hash_map<std::string, int> tensors_;
  absl::flat_hash_map<std::string, int> sections_;
  absl::flat_hash_map<std::string, int> attachments_;
  // Chunks that were read and hold only bools; none is read twice.
  absl::flat_hash_set<std::pair<uint64_t, uint32_t>> bools_;
};

}  // namespace modelstore::storage
