// Stores what a checkpoint has become: shares the chunks that exist, computes the
// others in bounded memory on any number of threads, and writes the manifest.
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

// Work() is for any thread; everything else for one at a time, Manifest() when it
// is done.
class WriteOut {
 public:
  // Plans; reads nothing. `checkpoint` does not change any more and outlives this.
  explicit WriteOut(const WorkingCheckpoint* checkpoint);

  // Whose chunks are shared: the base first, the others once.
  std::vector<std::shared_ptr<storage::Read>> sources() const;
  // Bytes to be read and written.
  int64_t total_bytes() const { return total_bytes_; }
  int64_t done_bytes() const { return done_bytes_; }
  // Of the tensors, those that the base did not have.
  int64_t new_bytes() const { return new_bytes_; }

  // INVALID_ARGUMENT, with both figures, if that is more work, or makes a larger
  // manifest, than one call may: a chunk that many tensors repeat costs little to
  // send and much to compute. INTERNAL if a tensor's bytes are not as long as its
  // shape says.
  absl::Status CheckPlan() const;
  // Of the digests of what is computed.
  int64_t digest_bytes() const { return digest_bytes_; }
  // What one thread computes with; 0 if nothing is computed.
  int64_t working_bytes() const { return working_bytes_; }

  // Called once, before Work(). Where the new chunks go; null: they are computed, and
  // go nowhere.
  void Begin(storage::DerivedSave* save);
  // Computes one chunk after the other until then, or until none is left.
  void Work(absl::Time until) EXCLUDES(mutex_);
  // No chunk is left and none is being computed, or it has failed and none is.
  bool done() EXCLUDES(mutex_);
  absl::Status status() EXCLUDES(mutex_);

  storage::ManifestPart Manifest() const;

 private:
  // A range of rows whose bytes are computed.
  struct Computed {
    SourcePtr source;
    int64_t chunk_size = 0;
    int64_t chunk_count = 0;
    std::string digests;
  };
  // A range of rows: shared, or computed.
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
  size_t next_ GUARDED_BY(mutex_) = 0;
  int64_t next_chunk_ GUARDED_BY(mutex_) = 0;
  int running_ GUARDED_BY(mutex_) = 0;
};

}  // namespace modelstore::server::modify
