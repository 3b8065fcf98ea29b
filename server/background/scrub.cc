#include "server/background/scrub.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/contract/names.h"
#include "proto/contract/steady_time.h"
#include "server/core/resource_names.h"

namespace modelstore::server {
namespace {

// Maximum time that a version is held at once.
constexpr absl::Duration kHoldTime = absl::Seconds(2);
// Delay before a retry while the store is unavailable.
constexpr absl::Duration kRetryInterval = absl::Seconds(1);
// Reads of a place that the disk cannot read, before it is passed over.
constexpr int kReadAttempts = 3;
constexpr int kPageSize = 100;
// Maximum number of chunks remembered per model, about 100 bytes each. Above it the set
// is cleared and some shared chunks are read again.
constexpr size_t kMaxSeenChunks = 200'000;

// OUT_OF_RANGE: the manifest names bytes that its chunk does not have.
bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsOutOfRange(status);
}

}  // namespace

Scrub::Scrub(storage::CheckpointStore* store, const Log* log,
             std::shared_ptr<Gauges> gauges, Options options)
    : store_(store),
      log_(log),
      gauges_(std::move(gauges)),
      options_(options),
      rate_limiter_(options.bytes_per_second),
      thread_([this] { Run(); }) {}

Scrub::~Scrub() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

bool Scrub::Sleep(absl::Duration time) {
  MutexLock lock(mutex_);
  return !changed_.WaitFor(mutex_, time,
                           [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopping_; });
}

bool Scrub::stopping() {
  MutexLock lock(mutex_);
  return stopping_;
}

void Scrub::Run() {
  absl::Duration wait = options_.first_after;
  while (Sleep(wait)) {
    const absl::Time begin = SteadyNow();
    gauges_->scrub_damaged_tensors = 0;
    Pass pass;
    const absl::Status status = RunPass(pass);
    if (stopping()) return;
    const absl::Time end = SteadyNow();
    if (status.ok()) {
      gauges_->last_scrub_time_us = absl::ToUnixMicros(absl::Now());
      const bool whole = pass.damaged_tensors + pass.unread_tensors == 0;
      log_->Write(whole ? LogLevel::kInfo : LogLevel::kError, "scrub",
                  {{"checkpoints", pass.checkpoints},
                   {"bytes", pass.bytes},
                   {"damaged_tensors", pass.damaged_tensors},
                   {"unread_tensors", pass.unread_tensors},
                   {"seconds", absl::ToDoubleSeconds(end - begin)}});
    } else {
      log_->Write(LogLevel::kWarning, "scrub_failed", {{"message", status.message()}});
    }
    wait = std::max(begin + options_.period - end, kRetryInterval);
  }
}

absl::Status Scrub::RunPass(Pass& pass) {
  std::string after;
  do {
    auto models = store_->models().List("", after, kPageSize);
    if (!models.ok()) return models.status();
    for (const auto& model : models->items) {
      pass.seen.clear();
      const absl::Status status = ScrubModel(model.model_id(), pass);
      // NOT_FOUND: the model was deleted during the pass.
      if (!status.ok() && !absl::IsNotFound(status)) return status;
    }
    after = models->next;
  } while (!after.empty() && !stopping());
  return absl::OkStatus();
}

absl::Status Scrub::ScrubModel(const std::string& model_id, Pass& pass) {
  std::string after;
  do {
    auto versions =
        store_->checkpoints().List(model_id, /*newest_first=*/true, after, kPageSize);
    if (!versions.ok()) return versions.status();
    for (const auto& record : versions->items) {
      Place place;
      absl::Status status = ScrubCheckpoint(model_id, record.version(), place, pass);
      // UNAVAILABLE: storage is being reopened after a fault. Retries until it is open.
      while (absl::IsUnavailable(status) && Sleep(kRetryInterval)) {
        status = ScrubCheckpoint(model_id, record.version(), place, pass);
      }
      if (!status.ok() && !absl::IsNotFound(status)) return status;
      if (stopping()) return absl::OkStatus();
      ++pass.checkpoints;
    }
    after = versions->next;
  } while (!after.empty());
  return absl::OkStatus();
}

bool Scrub::GivesUp(const absl::Status& status, Place& place) {
  if (!absl::IsUnavailable(status) || ++place.failures < kReadAttempts) return false;
  return store_->maintenance().Stats().ok();
}

absl::Status Scrub::ScrubCheckpoint(const std::string& model_id, int64_t version,
                                    Place& place, Pass& pass) {
  while (!stopping()) {
    auto read = store_->reads().Open(model_id, version);
    const bool damaged = absl::IsDataLoss(read.status());
    if (damaged || GivesUp(read.status(), place)) {
      Report("", CheckpointNameOf(model_id, version),
             {std::string(read.status().message()), damaged}, pass);
      return absl::OkStatus();
    }
    if (!read.ok()) return read.status();
    // The model was deleted and another created under its name. That one is read in the
    // next pass.
    if (place.uid.empty()) place.uid = (*read)->model().uid();
    if ((*read)->model().uid() != place.uid) return absl::OkStatus();
    if (auto s = ScrubStep(*read, place, pass); !s.ok()) return s;
    if (place.tensor == (*read)->manifest().tensors_size()) return absl::OkStatus();
    // Releases the version before waiting, so that its deletion takes effect.
    read->reset();
    Sleep(rate_limiter_.Wait(SteadyNow()));
  }
  return absl::OkStatus();
}

absl::Status Scrub::ScrubStep(const std::shared_ptr<storage::Read>& read, Place& place,
                              Pass& pass) {
  const absl::Time until = SteadyNow() + kHoldTime;
  const auto& tensors = read->manifest().tensors();
  while (place.tensor < tensors.size()) {
    const auto& tensor = tensors[place.tensor];
    if (tensor.tied_to().empty()) {
      auto cursor = storage::ChunkCursor::Open(read, place.tensor);
      if (!cursor.ok()) {
        Report(FullTensorName(tensor), FullCheckpointName(*read),
               {std::string(cursor.status().message())}, pass);
      }
      if (cursor.ok()) cursor->Seek(place.position);
      while (cursor.ok() && !cursor->done()) {
        // The caller waits instead, without holding the version, if the wait exceeds the
        // hold time.
        const absl::Time now = SteadyNow();
        const absl::Duration wait = rate_limiter_.Wait(now);
        if (now + wait > until || !Sleep(wait)) return absl::OkStatus();
        if (auto s = CheckChunk(*read, *cursor, place, pass); !s.ok()) return s;
        cursor->NextChunk();
        place.position = cursor->position();
      }
    }
    ++place.tensor;
    place.position = 0;
    place.reported = false;
  }
  return absl::OkStatus();
}

absl::Status Scrub::CheckChunk(const storage::Read& read,
                               const storage::ChunkCursor& chunk, Place& place,
                               Pass& pass) {
  auto found = pass.seen.find(chunk.stored_id());
  if (found == pass.seen.end()) {
    const auto bytes = chunk.ReadChunk();
    const bool unread = GivesUp(bytes.status(), place);
    if (!bytes.ok() && !unread && !IsDamage(bytes.status())) return bytes.status();
    place.failures = 0;
    const int64_t size = chunk.chunk_bytes();
    if (!unread) {
      pass.bytes += size;
      gauges_->scrubbed_bytes += size;
    }
    rate_limiter_.Spend(size, SteadyNow());
    if (pass.seen.size() == kMaxSeenChunks) pass.seen.clear();
    found = pass.seen
                .emplace(chunk.stored_id(),
                         Finding{std::string(bytes.status().message()), !unread})
                .first;
  }
  if (!found->second.error.empty() && !place.reported) {
    place.reported = true;
    const auto& tensor = read.manifest().tensors(chunk.tensor());
    Report(FullTensorName(tensor), FullCheckpointName(read), found->second, pass);
  }
  return absl::OkStatus();
}

void Scrub::Report(absl::string_view tensor, absl::string_view checkpoint,
                   const Finding& finding, Pass& pass) {
  if (finding.damaged) {
    ++pass.damaged_tensors;
    gauges_->scrub_damaged_tensors++;
  } else {
    ++pass.unread_tensors;
  }
  log_->Write(LogLevel::kError, finding.damaged ? "scrub_damage" : "scrub_unread",
              {{"tensor", tensor},
               {"checkpoint", checkpoint},
               {"message", absl::string_view(finding.error)}});
}

}  // namespace modelstore::server
