#include "client/internal/save_plan.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "client/internal/check_strings.h"
#include "client/internal/convert.h"
#include "client/internal/device_staging.h"
#include "client/internal/staging_pool.h"
#include "client/internal/threads.h"
#include "proto/contract/errors.h"
#include "proto/contract/limits.h"
#include "proto/contract/names.h"
#include "proto/contract/utf8.h"

namespace modelstore::internal {
namespace {

// Maximum size of a part; leaves space for the other fields of its message.
constexpr size_t kManifestPartBytes = kMaxManifestMessageBytes - (size_t{64} << 10);
// A section is not cut: it must fit in a message.
constexpr int64_t kMaxSentSectionBytes = kMaxMessageBytes - (int64_t{64} << 10);

// Page-locking is slow, and locked memory is kept for the next save, so it is requested
// in few sizes.
constexpr size_t kDeviceBlockBytes = size_t{32} << 20;

// All digests of a piece are in one message, so very large pieces have larger chunks.
int64_t ChunkSizeFor(int64_t piece_bytes) {
  constexpr int64_t kMostChunks = 32'768;
  return piece_bytes > kMostChunks * kDefaultChunkBytes ? kMaxChunkBytes
                                                        : kDefaultChunkBytes;
}

// Longest name shown in an error message.
constexpr size_t kShownBytes = 200;

std::string NameOf(const TensorInfo& info) {
  return absl::StrCat("tensor ",
                      ToUtf8(TensorNameOf(info.section, info.key), kShownBytes));
}

// Checks that a view's names are UTF-8 and that its key is new. Several views may be
// parts of one tensor if their boxes differ.
absl::Status CheckKeyOf(
    const TensorView& view,
    absl::flat_hash_map<std::string, std::vector<const TensorView*>>& boxes) {
  const TensorInfo& info = view.info;
  const std::string name = NameOf(info);
  for (const auto& [part, text] :
       {std::pair("section", &info.section), std::pair("key", &info.key),
        std::pair("tied_to", &info.tied_to)}) {
    absl::Status s = CheckString(absl::StrCat(name, ": ", part), *text);
    if (!s.ok()) return s;
  }
  auto& earlier = boxes[TensorNameOf(info.section, info.key)];
  for (const TensorView* other : earlier) {
    if (other->offset == view.offset && other->size == view.size) {
      return InvalidField(name, "the key is given twice: keys are unique in a section");
    }
  }
  earlier.push_back(&view);
  return absl::OkStatus();
}

// Checks that the tensors referenced by a section's value are in the save.
absl::Status CheckNamed(const std::string& section, const std::vector<NamedTensor>& named,
                        const std::vector<TensorView>& tensors) {
  if (named.empty()) return absl::OkStatus();
  absl::flat_hash_set<absl::string_view> keys;
  for (const TensorView& view : tensors) {
    const bool here =
        view.info.section == section || (view.info.section.empty() && section == "model");
    if (here) keys.insert(view.info.key);
  }
  for (const NamedTensor& tensor : named) {
    if (keys.contains(tensor.key)) continue;
    return InvalidField(
        absl::StrCat("section \"", section, "\""),
        absl::StrCat("value ", tensor.place, ": no tensor of the section has the key \"",
                     tensor.key, "\""));
  }
  return absl::OkStatus();
}

}  // namespace

struct SavePlan::Borrowing {
  // Owner of every payload whose view has none. The last reference signals the end of
  // use.
  struct Token {
    explicit Token(std::shared_ptr<Borrowing> b) : borrowing(std::move(b)) {}
    ~Token() {
      MutexLock lock(borrowing->mutex);
      borrowing->released = true;
      borrowing->changed.NotifyAll();
    }
    const std::shared_ptr<Borrowing> borrowing;
  };

  Mutex mutex;
  CondVar changed;
  bool released GUARDED_BY(mutex) = false;
};

absl::StatusOr<std::unique_ptr<SavePlan>> SavePlan::Make(SaveContent content,
                                                         bool whole) {
  std::unique_ptr<SavePlan> plan(new SavePlan());
  ToMetadata(content, &plan->metadata_);
  if (absl::Status s = CheckStrings(plan->metadata_); !s.ok()) return s;
  for (const SectionContent& section : content.sections) {
    v1::Section& message = plan->sections_.emplace_back();
    std::vector<NamedTensor> named;
    absl::Status s =
        CheckString(absl::StrCat("section ", ToUtf8(section.name, kShownBytes), ".name"),
                    section.name);
    if (s.ok()) s = ToSection(section, &message, &named);
    if (s.ok() && whole) s = CheckNamed(section.name, named, content.tensors);
    if (!s.ok()) return s;
    const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
    if (bytes > kMaxSentSectionBytes) {
      return InvalidField(
          absl::StrCat("section ", section.name),
          absl::StrCat("takes ", bytes, " bytes; at most ", kMaxSentSectionBytes,
                       " travel in one message: save large values as tensors"));
    }
  }
  for (Attachment& attachment : content.attachments) {
    absl::Status s = plan->AddAttachment(std::move(attachment));
    if (!s.ok()) return s;
  }
  plan->tensors_.reserve(content.tensors.size());
  absl::flat_hash_map<std::string, std::vector<const TensorView*>> boxes;
  for (const TensorView& view : content.tensors) {
    absl::Status s = CheckKeyOf(view, boxes);
    if (s.ok()) s = plan->AddTensor(view);
    if (!s.ok()) return s;
  }
  plan->views_ = std::move(content.tensors);
  if (absl::Status s = plan->CutChunks(); !s.ok()) return s;
  return plan;
}

absl::Status SavePlan::AddAttachment(Attachment attachment) {
  v1::Attachment& message = attachments_.emplace_back();
  const std::string field =
      absl::StrCat("attachment ", ToUtf8(attachment.name, kShownBytes));
  absl::Status s = CheckString(absl::StrCat(field, ".name"), attachment.name);
  if (s.ok()) s = CheckString(absl::StrCat(field, ".media_type"), attachment.media_type);
  if (!s.ok()) return s;
  if (static_cast<int64_t>(attachment.data.size()) > kMaxAttachmentBytes) {
    return InvalidField(absl::StrCat(field, ".data"),
                        absl::StrCat("has ", attachment.data.size(), " bytes, at most ",
                                     kMaxAttachmentBytes, " are allowed"));
  }
  message.set_name(std::move(attachment.name));
  message.set_media_type(std::move(attachment.media_type));
  message.set_data(std::move(attachment.data));
  return absl::OkStatus();
}

absl::Status SavePlan::AddTensor(const TensorView& view) {
  PlannedTensor& tensor = tensors_.emplace_back();
  ToTensor(view.info, &tensor.message);
  tensor.first_chunk = chunk_count_;
  if (!view.info.tied_to.empty()) return absl::OkStatus();
  const std::vector<int64_t>& box = view.size.empty() ? view.info.shape : view.size;
  absl::StatusOr<int64_t> bytes = TensorBytes(view.info.dtype, box);
  if (!bytes.ok()) return InvalidField(NameOf(view.info), bytes.status().message());
  if (*bytes != view.info.size_bytes) {
    return InvalidField(
        NameOf(view.info),
        absl::StrCat("has ", *bytes, " bytes by its shape, but size_bytes is ",
                     view.info.size_bytes));
  }
  if (view.data == nullptr && view.source == nullptr && *bytes > 0) {
    return InvalidField(NameOf(view.info), "has no data");
  }
  v1::Piece* piece = tensor.message.add_pieces();
  piece->mutable_offset()->Add(view.offset.begin(), view.offset.end());
  piece->mutable_size()->Add(view.size.begin(), view.size.end());
  const int64_t chunk_size = ChunkSizeFor(*bytes);
  piece->set_chunk_size_bytes(chunk_size);
  tensor.chunk_count = static_cast<size_t>((*bytes + chunk_size - 1) / chunk_size);
  chunk_count_ += tensor.chunk_count;
  total_bytes_ += *bytes;
  return absl::OkStatus();
}

absl::Status SavePlan::CutChunks() {
  chunks_ = std::make_unique<PlannedChunk[]>(chunk_count_);
  borrowing_ = std::make_shared<Borrowing>();
  // Only chunks (and later payloads) keep the token, so it is destroyed with the last of
  // them.
  const auto token = std::make_shared<Borrowing::Token>(borrowing_);
  for (size_t t = 0; t < tensors_.size(); ++t) {
    const PlannedTensor& tensor = tensors_[t];
    if (tensor.chunk_count == 0) continue;
    const TensorView& view = views_[t];
    may_change_ |= !view.immutable;
    const int64_t chunk_size = tensor.message.pieces(0).chunk_size_bytes();
    for (size_t i = 0; i < tensor.chunk_count; ++i) {
      PlannedChunk& chunk = chunks_[tensor.first_chunk + i];
      const int64_t begin = static_cast<int64_t>(i) * chunk_size;
      if (view.source == nullptr) {
        chunk.data = static_cast<const char*>(view.data) + begin;
      }
      chunk.source = view.source;
      chunk.source_offset = begin;
      chunk.size =
          static_cast<uint32_t>(std::min(chunk_size, view.info.size_bytes - begin));
      chunk.immutable = view.immutable;
      chunk.owner = view.owner != nullptr ? view.owner : token;
    }
  }
  views_.clear();
  return absl::OkStatus();
}

void SavePlan::Digest(size_t i) {
  PlannedChunk& chunk = chunks_[i];
  if (chunk.digested.load(std::memory_order_acquire)) return;
  chunk.digest = ComputeDigest(DigestAlgorithm::kXxh3_128,
                               absl::string_view(chunk.data, chunk.size));
  chunk.digested.store(true, std::memory_order_release);
  digested_.fetch_add(1);
}

absl::Status SavePlan::DigestAll(int threads, Deadline deadline) {
  std::atomic<size_t> next{0};
  Mutex mutex;
  absl::Status status;  // under mutex
  const auto work = [&] {
    for (size_t i = next++; i < chunk_count_; i = next++) {
      // Not digested again: after Staged() the caller may have changed bytes that were
      // already sent.
      if (chunks_[i].digested.load(std::memory_order_acquire)) continue;
      absl::Status s = FetchFromDevice({static_cast<uint32_t>(i)}, deadline);
      if (!s.ok()) {
        next = chunk_count_;
        MutexLock lock(mutex);
        status.Update(s);
        return;
      }
      Digest(i);
      ReleaseChunk(i);
    }
  };
  std::vector<std::thread> helpers;
  // Starting a thread costs as much as digesting a few chunks.
  for (int i = 1; i < threads && chunk_count_ > 8; ++i)
    helpers.push_back(TryThread(work));
  work();
  for (std::thread& helper : helpers) {
    if (helper.joinable()) helper.join();
  }
  return status;
}

std::vector<v1::ManifestPart> SavePlan::ManifestParts() const {
  std::vector<v1::ManifestPart> parts(1);
  size_t bytes = 0;
  const auto make_room = [&](size_t more) {
    // The first part shares its message with the metadata.
    const bool shared = bytes > 0 || parts.size() == 1;
    if (shared && bytes + more > kManifestPartBytes) {
      parts.emplace_back();
      bytes = 0;
    }
    bytes += more + 8;
  };
  for (const PlannedTensor& tensor : tensors_) {
    const size_t digest_bytes =
        tensor.chunk_count * DigestLength(DigestAlgorithm::kXxh3_128);
    make_room(tensor.message.ByteSizeLong() + digest_bytes);
    v1::Tensor* out = parts.back().add_tensors();
    *out = tensor.message;
    if (tensor.chunk_count == 0) continue;
    std::string* digests = out->mutable_pieces(0)->mutable_chunk_digests();
    digests->reserve(digest_bytes);
    for (size_t i = 0; i < tensor.chunk_count; ++i) {
      const absl::string_view d = chunks_[tensor.first_chunk + i].digest.bytes();
      digests->append(d.data(), d.size());
    }
  }
  for (const v1::Section& section : sections_) {
    make_room(section.ByteSizeLong());
    *parts.back().add_sections() = section;
  }
  for (const v1::Attachment& attachment : attachments_) {
    make_room(attachment.ByteSizeLong());
    *parts.back().add_attachments() = attachment;
  }
  return parts;
}

absl::StatusOr<bool> SavePlan::Stage(const std::shared_ptr<StagingPool>& pool,
                                     int64_t max_bytes, int threads, Deadline deadline) {
  std::vector<PlannedChunk*> chunks(chunk_count_);
  for (size_t i = 0; i < chunk_count_; ++i) chunks[i] = &chunks_[i];
  DeviceStaging from_devices(chunks, kDeviceBlockBytes);
  streams_devices_ = from_devices.bytes() > max_bytes;
  if (streams_devices_) {
    (void)StageFromMemory(pool, max_bytes, threads);
    return false;
  }
  // Device copies run while this process copies host memory.
  if (absl::Status s = from_devices.Begin(); !s.ok()) return s;
  const bool all = StageFromMemory(pool, max_bytes - from_devices.bytes(), threads);
  if (absl::Status s = from_devices.Finish(deadline); !s.ok()) return s;
  for (PlannedChunk* chunk : chunks) chunk->source.reset();
  return all;
}

absl::Status SavePlan::FetchFromDevice(const std::vector<uint32_t>& chunks,
                                       Deadline deadline) {
  if (!streams_devices_) return absl::OkStatus();
  std::vector<PlannedChunk*> wanted;
  for (const uint32_t i : chunks) wanted.push_back(&chunks_[i]);
  MutexLock lock(device_mutex_);
  DeviceStaging from_devices(wanted, kMaxChunkBytes);
  if (absl::Status s = from_devices.Begin(); !s.ok()) return s;
  return from_devices.Finish(deadline);
}

void SavePlan::ReleaseChunk(size_t i) {
  PlannedChunk& chunk = chunks_[i];
  if (chunk.source == nullptr) return;
  chunk.data = nullptr;
  chunk.owner.reset();
}

bool SavePlan::StageFromMemory(const std::shared_ptr<StagingPool>& pool,
                               int64_t max_bytes, int threads) {
  StagingArea area(pool, max_bytes);
  std::vector<CopyJob> jobs;
  std::vector<std::pair<size_t, StagingArea::Piece>> staged;
  bool all = true;
  for (size_t i = 0; i < chunk_count_; ++i) {
    PlannedChunk& chunk = chunks_[i];
    if (chunk.immutable || chunk.source != nullptr) continue;
    StagingArea::Piece piece = area.Take(chunk.size);
    if (piece.data == nullptr) {
      all = false;
      continue;
    }
    jobs.push_back({piece.data, chunk.data, chunk.size});
    staged.emplace_back(i, std::move(piece));
  }
  // Chunks change only after the copy, as the copy reads their old data.
  CopyInParallel(jobs, threads);
  for (auto& [i, piece] : staged) {
    chunks_[i].data = piece.data;
    chunks_[i].owner = std::move(piece.owner);
  }
  return all;
}

// Payloads that gRPC has not sent yet still hold the token; they are released when their
// stream is cancelled or its connection closes.
void SavePlan::Release(Deadline deadline) {
  chunks_.reset();
  chunk_count_ = 0;
  MutexLock lock(borrowing_->mutex);
  borrowing_->changed.WaitUntil(
      borrowing_->mutex, deadline,
      [this]() REQUIRES(borrowing_->mutex) { return borrowing_->released; });
}

}  // namespace modelstore::internal
