#include "client/internal/chunk_sender.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "client/internal/rpc.h"
#include "client/internal/threads.h"
#include "proto/contract/chunk_wire.h"
#include "proto/contract/errors.h"

namespace modelstore::internal {
namespace {

// Minimum bytes per lane: fewer do not justify another connection.
constexpr int64_t kBytesPerLane = int64_t{8} << 20;
constexpr size_t kMaxChunksPerMessage = 1024;

std::string Method() { return std::string(kTransfer) + "UploadChunks"; }

// The status that decides a round: a permanent failure before a transient one, and among
// transient ones the one with the longest requested delay.
absl::Status MostSevereError(const std::vector<absl::Status>& statuses) {
  const auto weight = [](const absl::Status& s) {
    if (s.ok()) return -absl::InfiniteDuration();
    if (!IsTransient(s)) return absl::InfiniteDuration();
    return RetryDelay(s).value_or(absl::Seconds(-1));
  };
  return *std::max_element(
      statuses.begin(), statuses.end(),
      [&](const auto& a, const auto& b) { return weight(a) < weight(b); });
}

}  // namespace

std::vector<uint32_t> ChunkQueue::Claim(int64_t message_bytes) {
  MutexLock lock(mutex_);
  std::vector<uint32_t> claimed;
  int64_t bytes = 0;
  while (!stopped_ && next_ < todo_.size() && claimed.size() < kMaxChunksPerMessage) {
    const int64_t size = plan_->chunk(todo_[next_]).size;
    if (!claimed.empty() && bytes + size > message_bytes) break;
    bytes += size;
    claimed.push_back(todo_[next_++]);
  }
  return claimed;
}

absl::StatusOr<std::vector<uint32_t>> ChunkQueue::Take(int64_t message_bytes,
                                                       Deadline deadline,
                                                       int64_t* skipped_bytes) {
  while (true) {
    const std::vector<uint32_t> claimed = Claim(message_bytes);
    if (claimed.empty()) return claimed;
    if (absl::Status s = plan_->FetchFromDevice(claimed, deadline); !s.ok()) return s;
    // Without the lock: lanes digest in parallel. Each chunk is claimed by one lane.
    for (const uint32_t i : claimed) plan_->Digest(i);
    std::vector<uint32_t> fresh;
    MutexLock lock(mutex_);
    for (const uint32_t i : claimed) {
      if (sent_.insert(plan_->chunk(i).digest).second) {
        fresh.push_back(i);
      } else {
        *skipped_bytes += plan_->chunk(i).size;
        plan_->ReleaseChunk(i);
      }
    }
    changed_.NotifyAll();
    if (!fresh.empty()) return fresh;
  }
}

bool ChunkQueue::WaitDigested(Deadline deadline) {
  MutexLock lock(mutex_);
  return changed_.WaitUntil(mutex_, deadline, [this]() REQUIRES(mutex_) {
    return stopped_ || plan_->AllDigested();
  }) && !stopped_;
}

void ChunkQueue::Stop() {
  MutexLock lock(mutex_);
  stopped_ = true;
  changed_.NotifyAll();
}

std::vector<Payload> PayloadsOf(SavePlan* plan, const std::vector<uint32_t>& chunks,
                                int64_t* bytes) {
  std::vector<Payload> payloads;
  payloads.reserve(chunks.size());
  *bytes = 0;
  for (const uint32_t i : chunks) {
    const PlannedChunk& chunk = plan->chunk(i);
    payloads.push_back({std::string_view(chunk.data, chunk.size), chunk.owner});
    *bytes += chunk.size;
    plan->ReleaseChunk(i);
  }
  return payloads;
}

absl::Status UploadRound::Run(std::vector<uint32_t> todo, int streams) {
  int64_t bytes = 0;
  for (const uint32_t i : todo) bytes += plan_->chunk(i).size;
  const int lanes =
      static_cast<int>(std::clamp<int64_t>(bytes / kBytesPerLane, 1, streams));
  // Lanes share one queue, so that a fast lane sends more than a slow one.
  ChunkQueue queue(plan_, std::move(todo));
  std::vector<absl::Status> statuses(lanes);
  const auto run = [&](int lane) {
    statuses[lane] = RunLane(lane, &queue);
    // After a permanent failure no more bytes are needed. After a transient one the other
    // lanes continue on their own connections.
    if (!statuses[lane].ok() && !IsTransient(statuses[lane])) queue.Stop();
  };
  std::vector<std::thread> threads;
  for (int lane = 1; lane < lanes; ++lane)
    threads.push_back(TryThread([&, lane] { run(lane); }));
  run(0);
  for (std::thread& thread : threads) {
    if (thread.joinable()) thread.join();
  }
  if (state_->cancellation.cancelled()) {
    return absl::CancelledError("the save was cancelled");
  }
  return MostSevereError(statuses);
}

Deadline UploadRound::StepDeadline() const {
  return std::min(deadline_, After(connection_.options().stall_timeout));
}

absl::Status UploadRound::RunLane(int lane, ChunkQueue* queue) {
  absl::StatusOr<std::unique_ptr<Stream>> stream =
      connection_.Open(Method(), lane, StepDeadline());
  if (!stream.ok()) return stream.status();
  TrackedStream tracked(state_->cancellation, **stream);
  bool first = true;
  absl::Status s = SendChunks(**stream, queue, &first);
  // One manifest per contribution; lane 0 always exists.
  if (s.ok() && lane == 0) s = SendManifest(**stream, queue, &first);
  if (!s.ok()) return s;
  // Nothing was sent: the server would refuse a stream without a first message.
  if (first) return absl::OkStatus();
  return CloseAndReceive(**stream, StepDeadline()).status();
}

absl::Status UploadRound::SendChunks(Stream& stream, ChunkQueue* queue, bool* first) {
  for (int64_t message_bytes = kFirstMessageBytes;;
       message_bytes = std::min(2 * message_bytes, kMessageBytes)) {
    int64_t skipped = 0;
    const absl::StatusOr<std::vector<uint32_t>> taken =
        queue->Take(message_bytes, StepDeadline(), &skipped);
    if (!taken.ok()) return taken.status();
    const std::vector<uint32_t>& chunks = *taken;
    state_->done_bytes += skipped;
    if (chunks.empty()) return absl::OkStatus();
    v1::UploadChunksRequest request;
    if (std::exchange(*first, false)) {
      request.set_upload(target_.upload);
      request.set_contribution(target_.contribution);
    }
    for (const uint32_t i : chunks) {
      v1::ChunkHeader* header = request.add_chunks();
      const absl::string_view digest = plan_->chunk(i).digest.bytes();
      header->set_digest(digest.data(), digest.size());
      header->set_size_bytes(plan_->chunk(i).size);
    }
    int64_t bytes = 0;
    std::vector<Payload> payloads = PayloadsOf(plan_, chunks, &bytes);
    std::string head = ChunkMessageHead(request, static_cast<size_t>(bytes));
    const int64_t head_bytes = static_cast<int64_t>(head.size());
    const Deadline deadline = StepDeadline();
    absl::Status s = stream.Write(std::move(head), std::move(payloads), deadline);
    if (!s.ok()) return StreamError(stream, s, StepDeadline());
    state_->done_bytes += bytes;
    state_->transferred_bytes += bytes + head_bytes;
  }
}

absl::Status UploadRound::SendManifest(Stream& stream, ChunkQueue* queue, bool* first) {
  // The manifest needs every digest; other lanes may still compute theirs.
  if (!queue->WaitDigested(StepDeadline())) {
    stream.Cancel();
    return absl::UnavailableError("another stream of the save did not finish");
  }
  std::vector<v1::ManifestPart> parts = plan_->ManifestParts();
  for (size_t i = 0; i < parts.size(); ++i) {
    v1::UploadChunksRequest request;
    if (std::exchange(*first, false)) {
      request.set_upload(target_.upload);
      request.set_contribution(target_.contribution);
    }
    *request.mutable_manifest() = std::move(parts[i]);
    request.set_manifest_complete(i + 1 == parts.size());
    std::string bytes = request.SerializeAsString();
    const int64_t size = static_cast<int64_t>(bytes.size());
    absl::Status s = stream.Write(std::move(bytes), {}, StepDeadline());
    if (!s.ok()) return StreamError(stream, s, StepDeadline());
    state_->transferred_bytes += size;
  }
  return absl::OkStatus();
}

}  // namespace modelstore::internal
