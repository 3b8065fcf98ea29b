// A save cut into chunks, and its manifest.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "modelstore/device_bytes.h"
#include "modelstore/resources.h"
#include "modelstore/tensor.h"
#include "modelstore/transfer.h"
#include "modelstore/v1/checkpoint_transfer.pb.h"
#include "proto/contract/digest.h"
#include "proto/contract/mutex.h"

namespace modelstore::internal {

// Default chunk size. Smaller chunks share more between versions, larger ones cost less
// per byte.
inline constexpr int64_t kDefaultChunkBytes = int64_t{512} << 10;

// The unit of transfer and of sharing between versions.
struct PlannedChunk {
  const char* data = nullptr;
  uint32_t size = 0;
  bool immutable = false;
  std::atomic<bool> digested{false};
  Digest digest;
  // Keeps `data` alive. The transport holds a copy while it uses the bytes.
  std::shared_ptr<const void> owner;
  // Device that has the bytes; null for host memory, and once staged.
  std::shared_ptr<ByteSource> source;
  int64_t source_offset = 0;
};

// Different threads may use chunks of different index.
class SavePlan {
 public:
  // INVALID_ARGUMENT naming a tensor whose size, shape or data are inconsistent, or a
  // value that Python cannot reproduce. Unless the content is `whole`, values may
  // reference tensors of other contributions.
  static absl::StatusOr<std::unique_ptr<SavePlan>> Make(SaveContent content, bool whole);

  size_t chunk_count() const { return chunk_count_; }
  PlannedChunk& chunk(size_t i) { return chunks_[i]; }
  int64_t total_bytes() const { return total_bytes_; }
  // Epoch, loss, metrics and so on.
  const v1::Checkpoint& metadata() const { return metadata_; }

  // Computes the digest of a chunk if it has none yet.
  void Digest(size_t i);
  bool AllDigested() const { return digested_.load() == chunk_count_; }
  // Digests all chunks on several threads. Errors are those of FetchFromDevice().
  absl::Status DigestAll(int threads, Deadline deadline);

  // The manifest in parts of less than 1 MiB; a larger attachment has its own part. All
  // chunks must be digested.
  std::vector<v1::ManifestPart> ManifestParts() const;

  // Copies chunks that the caller may change into staging memory, up to `max_bytes`.
  // Chunks on devices are copied all or none. True if everything was copied, so that the
  // caller may change all its memory.
  absl::StatusOr<bool> Stage(const std::shared_ptr<class StagingPool>& pool,
                             int64_t max_bytes, int threads, Deadline deadline);
  // Whether any tensor is not declared immutable.
  bool may_change() const { return may_change_; }

  // Copies those of `chunks` that are on a device and not staged to host memory, for
  // digesting and sending. RESOURCE_EXHAUSTED if no memory can be page-locked, INTERNAL
  // if a device fails.
  absl::Status FetchFromDevice(const std::vector<uint32_t>& chunks, Deadline deadline);
  // Drops this plan's reference to the host copy of chunk `i`. No effect on chunks that
  // were never on a device.
  void ReleaseChunk(size_t i);

  // Drops all bytes, and waits until the transport no longer uses those without an owner:
  // the caller may free its memory afterwards.
  void Release(Deadline deadline);

 private:
  struct PlannedTensor {
    v1::Tensor message;
    size_t first_chunk = 0;
    size_t chunk_count = 0;
  };
  // Tracks when the last payload that refers to the caller's memory is destroyed.
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
  // Bytes on devices exceed the staging limit and are copied chunk by chunk.
  bool streams_devices_ = false;
  // A ByteSource may be used by one thread at a time.
  Mutex device_mutex_;
};

}  // namespace modelstore::internal
