// Validates one part of a manifest as a client sent it, without regard to the other
// parts. ManifestBuilder checks at commit that boxes tile, that names are unique and that
// chunks exist.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "modelstore/storage/v1/records.pb.h"
#include "proto/contract/digest.h"

namespace modelstore::storage {

// Sums over the parts of one manifest or one contribution.
struct ManifestTotals {
  // `bytes` estimates the stored size, places of chunks included and attachments
  // excluded.
  int64_t tensors = 0;
  int64_t bytes = 0;
  int64_t attachment_bytes = 0;

  ManifestTotals& operator+=(const ManifestTotals& other) {
    tensors += other.tensors;
    bytes += other.bytes;
    attachment_bytes += other.attachment_bytes;
    return *this;
  }
};

// Whether each piece must have the digests of its chunks, or may have none (one-shot
// saves, whose digests are computed as chunks arrive).
enum class DigestsWanted : uint8_t { kAll, kAllOrNone };

// Checks `part` and brings it into stored form: absent offsets, sizes and chunk sizes are
// filled in, the packs of pieces are cleared, tensors without bytes have no pieces. Adds
// its sizes to `totals`, which CheckManifestTotals() must accept. INVALID_ARGUMENT with
// the field's path; UNIMPLEMENTED for boxes that are no range of rows.
absl::Status CheckManifestPart(DigestAlgorithm algorithm, DigestsWanted wanted,
                               v1::ManifestPage& part, ManifestTotals& totals);

// INVALID_ARGUMENT if the totals exceed the limits of a checkpoint.
absl::Status CheckManifestTotals(const ManifestTotals& totals);

// Number of chunks of a piece in stored form.
int64_t ChunkCount(int64_t piece_bytes, int64_t chunk_size_bytes);

}  // namespace modelstore::storage
