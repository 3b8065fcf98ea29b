// The second of the two interfaces an engine implements, for bulk bytes. Chunks live in
// packs; a pack is written once by one writer, then published, read and dropped as a
// whole.
//
// Contract, held by every engine and checked by the conformance suite:
//   - Nothing of a pack is visible before Publish(); an abandoned writer leaves
//     nothing behind, at the latest after the next open.
//   - Once Publish() has returned OK, the pack survives power loss.
//   - Read() returns the appended bytes or an error; the caller checks the
//     digest. A damaged pack is DATA_LOSS for its chunks alone.
//   - A chunk that is being read stays readable until its PinnedBytes die, also
//     if its pack is dropped meanwhile.
// Thread-safe, except that one PackWriter is used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "storage/api/pinned_bytes.h"

namespace modelstore::storage {

// Identifies a chunk: the pack that it was written to and its number there. Callers above
// PackPlaces must not take it for a location, because copying forward moves chunks.
struct ChunkId {
  uint64_t pack = 0;
  uint32_t sequence = 0;

  friend bool operator==(const ChunkId&, const ChunkId&) = default;
};

// Writes one pack. Used by one thread at a time. If it is destroyed before Publish(), the
// pack is abandoned.
class PackWriter {
 public:
  virtual ~PackWriter() = default;

  virtual uint64_t pack() const = 0;
  // Bytes appended.
  virtual int64_t size_bytes() const = 0;

  // Appends a chunk, given in the fragments that the network delivered, which are not
  // used after the call. The chunks of a pack are numbered 0, 1, 2, ... in order of
  // appending. After an error the writer can only be destroyed.
  virtual absl::StatusOr<ChunkId> Append(
      absl::Span<const absl::string_view> fragments) = 0;
  absl::StatusOr<ChunkId> Append(absl::string_view chunk) {
    return Append(absl::MakeConstSpan(&chunk, 1));
  }

  // Skips `numbers` chunk numbers, for dead chunks that are left out when others are
  // copied forward. Not to be called before the first chunk.
  virtual void Skip(uint32_t numbers) = 0;

  // Closes the pack and makes its bytes durable. The pack is still invisible.
  virtual absl::Status Finish() = 0;
};

struct PackInfo {
  uint64_t pack = 0;
  int64_t size_bytes = 0;  // on disk
};

// See the contract at the top of the file.
class ChunkStore {
 public:
  virtual ~ChunkStore() = default;

  // `pack` must be new: never used before in this store.
  virtual absl::StatusOr<std::unique_ptr<PackWriter>> NewPack(uint64_t pack) = 0;

  // Makes a finished pack visible, durably.
  virtual absl::Status Publish(std::unique_ptr<PackWriter> writer) = 0;

  // NOT_FOUND if the pack has no such chunk, or was lost; DATA_LOSS if the engine detects
  // damage; UNAVAILABLE if the disk cannot read it now or the store is closed.
  virtual absl::StatusOr<PinnedBytes> Read(ChunkId chunk) = 0;

  // Published packs, in no order.
  virtual absl::StatusOr<std::vector<PackInfo>> ListPacks() = 0;

  // Drops whole packs; those that do not exist are ignored. OK means that they are gone
  // from the disk, or will be once no read pins them.
  virtual absl::Status DropPacks(absl::Span<const uint64_t> packs) = 0;

  // See Catalog. A chunk store starts closed: the first Reopen() opens it. `expected` are
  // the packs that the catalog names: if the store's metadata is damaged it is rebuilt
  // from the files of these packs. Files of other packs are garbage.
  virtual absl::Status Health() = 0;
  virtual absl::Status Reopen(absl::Span<const uint64_t> expected) = 0;
};

}  // namespace modelstore::storage
