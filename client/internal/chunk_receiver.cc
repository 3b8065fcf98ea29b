#include "client/internal/chunk_receiver.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/internal/rpc.h"
#include "proto/contract/chunk_wire.h"
#include "proto/contract/errors.h"
#include "proto/contract/message_codec.h"
#include "proto/contract/names.h"
#include "proto/contract/numeric.h"

namespace modelstore::internal {
namespace {

// Bytes are digested at their destination, in steps small enough to be in the cache.
constexpr int64_t kStepBytes = int64_t{128} << 10;

absl::Status UnrequestedData(absl::string_view what) {
  return absl::InternalError(absl::StrCat("LoadCheckpoint: the server sent ", what));
}

}  // namespace

// A message's payload, consumed from its start.
struct ChunkReceiver::Source {
  const std::vector<absl::string_view>& fragments;
  size_t index = 0;
  size_t offset = 0;

  // Copies `bytes` bytes to `to`, or drops them if it is null. At least that many remain.
  void Take(char* to, int64_t bytes) {
    while (bytes > 0) {
      const absl::string_view rest = fragments[index].substr(offset);
      const int64_t n = std::min<int64_t>(bytes, static_cast<int64_t>(rest.size()));
      if (to != nullptr) {
        std::memcpy(to, rest.data(), static_cast<size_t>(n));
        to += n;
      }
      bytes -= n;
      offset += static_cast<size_t>(n);
      if (offset == fragments[index].size()) {
        ++index;
        offset = 0;
      }
    }
  }
};

absl::Status ChunkReceiver::Take(const ReceivedMessage& message, int64_t end,
                                 int64_t* position) {
  std::vector<absl::string_view> views;
  views.reserve(message.fragments.size());
  for (const std::string_view f : message.fragments) {
    views.emplace_back(f.data(), f.size());
    plan_->transferred_bytes += static_cast<int64_t>(f.size());
  }
  absl::StatusOr<SplitMessage> split = SplitChunkMessage(views, kMaxHeadBytes);
  v1::LoadCheckpointResponse response;
  if (!split.ok() || !ParseMessage(split->head, &response)) {
    return UnrequestedData("a malformed message");
  }
  Source source{split->data};
  int64_t left = static_cast<int64_t>(split->data_bytes);
  for (const v1::LoadedChunk& run : response.chunks()) {
    if (run.position() != *position) return UnrequestedData("bytes of another position");
    if (run.size_bytes() <= 0 || run.size_bytes() > end - *position) {
      return UnrequestedData("bytes beyond the range");
    }
    if (run.size_bytes() > left) return UnrequestedData("fewer bytes than announced");
    if (absl::Status s = TakeRun(run, &source); !s.ok()) return s;
    *position += run.size_bytes();
    left -= run.size_bytes();
  }
  return left == 0 ? absl::OkStatus() : UnrequestedData("more bytes than announced");
}

absl::Status ChunkReceiver::TakeRun(const v1::LoadedChunk& run, Source* source) {
  const size_t index = FindTarget(run.position());
  LoadTarget& target = plan_->targets[index];
  if (run.position() + run.size_bytes() > target.end) {
    return UnrequestedData("a run across the end of a tensor");
  }
  // A small unbound tensor between two bound ones (CutRanges).
  if (!target.bound) {
    source->Take(nullptr, run.size_bytes());
    return absl::OkStatus();
  }
  const int64_t offset = run.position() - target.begin;
  ByteSink* const sink = target.buffer.sink.get();
  ByteSink::Slot slot;
  char* begin = nullptr;
  if (sink != nullptr) {
    const auto patience = plan_->connection->options().stall_timeout;
    slot = sink->Reserve(static_cast<size_t>(run.size_bytes()), After(patience));
    begin = slot.data.get();
    if (begin == nullptr) return RejectedByDevice(index, "no memory to receive it in");
  } else {
    // Before the first byte is written: after a failure the tensor is undefined.
    target.touched = true;
    begin = static_cast<char*>(target.buffer.data) + offset;
  }
  for (int64_t at = 0; at < run.size_bytes(); at += kStepBytes) {
    const int64_t n = std::min(kStepBytes, run.size_bytes() - at);
    source->Take(begin + at, n);
    digester_.Update(absl::string_view(begin + at, static_cast<size_t>(n)));
  }
  const Digest digest = digester_.Finish();
  if (digest.bytes() != run.digest()) {
    const TensorInfo& info = plan_->tensors[index];
    return TensorDataLoss(plan_->checkpoint.name, TensorNameOf(info.section, info.key),
                          "the bytes received do not match their digest");
  }
  const absl::string_view bytes(begin, static_cast<size_t>(run.size_bytes()));
  if (plan_->tensors[index].dtype == DType::kBool && !HoldsOnlyBools(bytes)) {
    // Saved by an earlier version that did not check bools. In Python any byte other than
    // 0 is true, but C++ requires 0 or 1.
    for (size_t i = 0; i < bytes.size(); ++i) begin[i] = begin[i] == 0 ? 0 : 1;
  }
  if (sink != nullptr) {
    target.touched = true;
    const std::string error =
        sink->Deliver(std::move(slot), static_cast<size_t>(run.size_bytes()), offset);
    if (!error.empty()) return RejectedByDevice(index, error);
  }
  target.missing -= run.size_bytes();
  plan_->done_bytes += run.size_bytes();
  return absl::OkStatus();
}

absl::Status ChunkReceiver::RejectedByDevice(size_t index, absl::string_view why) const {
  const TensorInfo& info = plan_->tensors[index];
  return absl::InternalError(
      absl::StrCat("tensor ", TensorNameOf(info.section, info.key), ": ", why));
}

// Returns the tensor that contains `position`, which must be within the sequence.
size_t ChunkReceiver::FindTarget(int64_t position) {
  const auto holds = [&](size_t i) {
    return plan_->targets[i].begin <= position && position < plan_->targets[i].end;
  };
  if (holds(target_)) return target_;
  // The last tensor that starts at or before the position. Empty tensors at the same
  // position precede it.
  const LoadTarget* const first = plan_->targets.get();
  const LoadTarget* const last = first + plan_->tensors.size();
  const LoadTarget* const after = std::upper_bound(
      first, last, position,
      [](int64_t p, const LoadTarget& target) { return p < target.begin; });
  target_ = static_cast<size_t>(after - first) - 1;
  return target_;
}

}  // namespace modelstore::internal
