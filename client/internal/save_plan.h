// A save cut into chunks: what is sent, and the manifest that tells what it is.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/options.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/digest.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Chunks are cut so. Smaller ones share more between versions, larger ones cost
// less per byte.
inline constexpr int64_t kDefaultChunkBytes = int64_t{512} << 10;

// Bytes that are sent, and shared between versions, as a whole.
struct PlannedChunk {
  const char* data = nullptr;
  uint32_t size = 0;
  bool immutable = false;
  std::atomic<bool> digested{false};
  Digest digest;
  // Keeps `data` alive, and the transport's use of it known.
  std::shared_ptr<const void> owner;
  // Where the bytes are until they are staged or brought over, if not at `data`.
  std::shared_ptr<ByteSource> source;
  int64_t source_offset = 0;
};

// Chunks of different index may be worked on by different threads.
class SavePlan {
 public:
  // INVALID_ARGUMENT naming the tensor whose size, shape or data do not agree, or the
  // value that cannot be given back. Values may name tensors of other contributions
  // unless the content is `whole`.
  static absl::StatusOr<std::unique_ptr<SavePlan>> Make(SaveContent content, bool whole);

  size_t chunk_count() const { return chunk_count_; }
  PlannedChunk& chunk(size_t i) { return chunks_[i]; }
  int64_t total_bytes() const { return total_bytes_; }
  // Epoch, loss, metrics and so on.
  const v1::Checkpoint& metadata() const { return metadata_; }

  // Computes the digest of a chunk if it has none yet.
  void Digest(size_t i);
  bool AllDigested() const { return digested_.load() == chunk_count_; }
  // On several threads. Fails as BringOver() does.
  absl::Status DigestAll(int threads, Deadline deadline);

  // The manifest in parts of less than 1 MiB, an attachment larger than that in a part of
  // its own. Every chunk has its digest by now.
  std::vector<v1::ManifestPart> ManifestParts() const;

  // Copies chunks that may change into staging memory, as far as `max_bytes` go: what
  // lies on devices all or not at all. True if nothing is left that the caller must not
  // change.
  absl::StatusOr<bool> Stage(const std::shared_ptr<class StagingPool>& pool,
                             int64_t max_bytes, int threads, Deadline deadline);
  // Whether the caller may change something of it once all is staged.
  bool may_change() const { return may_change_; }

  // Of these chunks brings over what lies on a device, not staged, for the moment in
  // which it is digested and sent. RESOURCE_EXHAUSTED if no memory can be page-locked,
  // INTERNAL if a device fails.
  absl::Status BringOver(const std::vector<uint32_t>& chunks, Deadline deadline);
  // Lets go of what was brought over for chunk `i`, whoever else may hold it still.
  void LetGo(size_t i);

  // Lets go of all bytes, and waits until the transport has let go of those that
  // have no owner of their own: afterwards the caller may free them.
  void Release(Deadline deadline);

 private:
  struct PlannedTensor {
    v1::Tensor message;
    size_t first_chunk = 0;
    size_t chunk_count = 0;
  };
  // Tells when the last payload that borrows the caller's memory is gone.
  struct Borrowing;

  SavePlan() = default;
  absl::Status AddTensor(const TensorView& view);
  absl::Status AddAttachment(Attachment attachment);
  absl::Status CutChunks();
  bool StageFromMemory(const std::shared_ptr<class StagingPool>& pool, int64_t max_bytes,
                       int threads);

  std::vector<PlannedTensor> tensors_;
  std::vector<v1::Section> sections_;
  std::vector<v1::Attachment> attachments_;
  v1::Checkpoint metadata_;
  std::vector<TensorView> views_;
  std::unique_ptr<PlannedChunk[]> chunks_;
  size_t chunk_count_ = 0;
  std::atomic<size_t> digested_{0};
  int64_t total_bytes_ = 0;
  bool may_change_ = false;
  std::shared_ptr<Borrowing> borrowing_;
  // Something lies on devices and is brought over bit by bit.
  bool streams_devices_ = false;
  // A source is used by one thread at a time.
  Mutex device_mutex_;
};

}  // namespace modelstore::internal
