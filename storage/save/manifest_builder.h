// Joins the parts of a manifest and builds what a commit writes: pages with the places of
// all chunks, the content digest, and summaries.
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

// What a manifest uses of one pack: bytes of distinct chunks.
struct PackUse {
  int64_t used_bytes = 0;
};

// A manifest in the form that is stored.
struct BuiltManifest {
  // Encoded ManifestPages of about 1 MiB, and their total size.
  std::vector<std::string> pages;
  int64_t page_bytes = 0;
  // Digest of the content: tensors, sections and attachments without the places of
  // chunks. Equal for equal content, wherever its chunks are stored.
  std::string digest;
  // Totals over all sections. A tied tensor counts as a tensor, without bytes.
  int64_t tensor_count = 0;
  int64_t logical_bytes = 0;
  std::vector<v1::SectionRecord> sections;  // without values
  std::vector<v1::AttachmentSummary> attachments;
  std::map<uint64_t, PackUse> packs;
  // Pack and sequence of each chunk that the manifest names.
  absl::flat_hash_set<std::pair<uint64_t, uint32_t>> chunks;
};

// Used by one thread.
class ManifestBuilder {
 public:
  // Returns where the chunk is stored; absent if it has not arrived.
  using FindChunk = absl::FunctionRef<std::optional<HeldChunk>(const Digest&)>;
  // Reads a stored chunk. DATA_LOSS if it is gone or does not match the digest.
  using ReadChunk =
      absl::FunctionRef<absl::StatusOr<PinnedBytes>(ChunkId, const Digest&)>;

  explicit ManifestBuilder(DigestAlgorithm algorithm) : algorithm_(algorithm) {}

  // Adds a part that CheckManifestPart() has accepted. A tensor that was added
  // before gets further pieces. INVALID_ARGUMENT if the two differ in dtype,
  // shape or tie; if a section or attachment is repeated with other content; if
  // a tie does not refer to an earlier tensor of the same kind; above kMaxSections or
  // kMaxAttachments.
  absl::Status Add(v1::ManifestPage part);

  // The parts added so far. Callers may fill in digests.
  v1::ManifestPage& manifest() { return manifest_; }

  // FAILED_PRECONDITION, naming tensors, if boxes leave a gap or `find` does not find a
  // chunk; INVALID_ARGUMENT if boxes overlap with other bytes, a chunk has another size
  // than its place, a tensor of bools has a byte other than 0 and 1, or a section names a
  // tensor that it does not have. `read` is called only for chunks of bool tensors that
  // are not known to hold only 0 and 1; if it returns DATA_LOSS, Build() returns
  // UNAVAILABLE. To be called once, because it moves the manifest into the result.
  absl::StatusOr<BuiltManifest> Build(FindChunk find, ReadChunk read);

 private:
  absl::Status AddTensor(v1::TensorRecord tensor);
  absl::Status AddSection(v1::SectionRecord section);
  absl::Status AddAttachment(v1::AttachmentRecord attachment);
  absl::Status CheckCounts() const;
  // Checks that the values of each section name only tensors of that section.
  absl::Status CheckNamedTensors();
  // Checks that the pieces tile the tensor's rows; adds missing ranges to `gaps`.
  absl::Status Tile(v1::TensorRecord& tensor, std::vector<std::string>& gaps) const;
  // Writes the place of each chunk into the pieces; adds tensors without all of their
  // chunks to `missing`.
  absl::Status Locate(v1::TensorRecord& tensor, FindChunk find, ReadChunk read,
                      std::vector<std::string>& missing, BuiltManifest& built);
  absl::Status CheckBools(const v1::TensorRecord& tensor, int64_t index,
                          const HeldChunk& chunk, const Digest& digest, ReadChunk read);
  // Fills in the summaries, and adds the sections that only tensors name.
  void CountSections(BuiltManifest& built);
  // Sums the bytes used of each pack.
  void CountPackUses(BuiltManifest& built) const;
  std::string ContentDigest() const;
  // Moves the manifest into encoded pages.
  void Paginate(BuiltManifest& built);

  const DigestAlgorithm algorithm_;
  v1::ManifestPage manifest_;
  // Positions in `manifest_`, by `section:key` or by name.
  absl::flat_hash_map<std::string, int> tensors_;
  absl::flat_hash_map<std::string, int> sections_;
  absl::flat_hash_map<std::string, int> attachments_;
  // Chunks that were read and hold only 0 and 1, so that none is read twice.
  absl::flat_hash_set<std::pair<uint64_t, uint32_t>> bools_;
};

}  // namespace modelstore::storage
