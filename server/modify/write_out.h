// Stores a modified checkpoint: shares the chunks that exist, computes the others in
// bounded memory on any number of threads, and makes the manifest.
//
//   WriteOut out(checkpoint);
//   if (!out.CheckPlan().ok()) ...
//   auto save = store.saves().StartDerived(request, out.sources());
//   out.Begin(save->get());
//   while (!out.done()) out.Work(SteadyNow() + absl::Milliseconds(50));
//   if (out.status().ok()) (*save)->Commit(out.Manifest(), {});
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/digest.h"
#include "proto/contract/mutex.h"
#include "server/modify/working_checkpoint.h"
#include "storage/api/reads.h"
#include "storage/api/saves.h"

namespace modelstore::server::modify {

// Work() may run on several threads at once; done(), status() and the counters may be
// called meanwhile. All else is for one thread: the constructor, Begin() before the first
// Work(), and Manifest() after done() with an OK status.
class WriteOut {
 public:
  // Makes the plan: which pieces are shared and which are computed. Reads no tensor.
  // `checkpoint` must outlive this and must not change any more.
  explicit WriteOut(const WorkingCheckpoint* checkpoint);

  // The checkpoints whose chunks are shared, each once; the base is the first.
  std::vector<std::shared_ptr<storage::Read>> sources() const;
  // Bytes of all computed tensors: read from storage plus written. For progress.
  int64_t total_bytes() const { return total_bytes_; }
  // The part of total_bytes() that is done; may end slightly below it, because reads are
  // divided evenly among chunks.
  int64_t done_bytes() const { return done_bytes_; }
  // Bytes of all ranges of rows that are not a whole stored tensor of the base.
  int64_t new_bytes() const { return new_bytes_; }

  // Checks the plan. INVALID_ARGUMENT, with value and limit, if it is more work or makes
  // a larger manifest than one call may. These are limited because a short request can
  // describe much work: many tensors can repeat one row. INTERNAL if a source is not as
  // long as dtype and shape of its tensor require.
  absl::Status CheckPlan() const;
  // Memory of the digests of all computed chunks.
  int64_t digest_bytes() const { return digest_bytes_; }
  // Maximum memory that one thread needs in Work(); 0 if nothing is computed.
  int64_t working_bytes() const { return working_bytes_; }

  // Called once, before Work(). New chunks go to `save`, which must outlive the
  // computation. If it is null, as for a validation, chunks are computed and discarded.
  void Begin(storage::DerivedSave* save);
  // Computes chunks until the time `until`, until none is left, or until one has failed.
  void Work(absl::Time until) EXCLUDES(mutex_);
  // Whether no chunk is being computed, and none is left or one has failed.
  bool done() EXCLUDES(mutex_);
  // The first error of a chunk, if any.
  absl::Status status() EXCLUDES(mutex_);

  // The whole manifest of the new version.
  storage::ManifestPart Manifest() const;

 private:
  // A range of rows whose bytes are computed, in chunks of `chunk_size` bytes of which
  // the last may be shorter. `digests` holds the chunks' digests in order. Begin() gives
  // it its final size, and each chunk is computed by one thread, so that threads write
  // disjoint bytes without a lock.
  struct Computed {
    SourcePtr source;
    int64_t chunk_size = 0;
    int64_t chunk_count = 0;
    std::string digests;
  };
  // A range of rows that becomes one or more pieces of the manifest. Either `shared` is
  // set, to a whole stored tensor, or `computed` is a position in `computed_`.
  struct Piece {
    int64_t first_row = 0;
    int64_t rows = 0;
    SourcePtr shared;
    int computed = -1;
  };

  void PlanTensor(size_t tensor);
  void PlanPiece(const WorkingTensor& tensor, SourcePtr source, int64_t first_row,
                 int64_t rows, std::vector<Piece>& pieces);
  void AddPiece(const WorkingTensor& tensor, const Piece& piece,
                storage::records::TensorRecord& record) const;
  absl::Status Compute(Computed& computed, int64_t chunk, std::string& buffer);

  const WorkingCheckpoint& checkpoint_;
  const DigestAlgorithm algorithm_;
  // By position in the checkpoint's table; empty for those tied to an earlier one.
  std::vector<std::vector<Piece>> pieces_;
  // By position in the table: the name of the first tensor of its tied group, for the
  // others of the group; else empty.
  std::vector<std::string> tied_to_;
  std::vector<Computed> computed_;
  int64_t total_bytes_ = 0;
  int64_t new_bytes_ = 0;
  int64_t digest_bytes_ = 0;
  int64_t working_bytes_ = 0;
  std::atomic<int64_t> done_bytes_ = 0;
  storage::DerivedSave* save_ = nullptr;

  Mutex mutex_;
  absl::Status status_ GUARDED_BY(mutex_);
  // The next chunk to compute, as positions in `computed_` and in its chunks, and the
  // number of chunks that are being computed.
  size_t next_ GUARDED_BY(mutex_) = 0;
  int64_t next_chunk_ GUARDED_BY(mutex_) = 0;
  int running_ GUARDED_BY(mutex_) = 0;
};

}  // namespace modelstore::server::modify
