#include "tests/server/harness.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "proto/contract/dtype.h"

namespace modelstore::server {

std::string DigestOf(absl::string_view bytes) {
  return std::string(ComputeDigest(DigestAlgorithm::kXxh3_128, bytes).bytes());
}

std::string MakeBytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

TestTensor MakeTensor(const std::string& key, v1::DType dtype,
                      const std::vector<int64_t>& shape, std::string bytes,
                      int64_t chunk_bytes) {
  TestTensor made;
  made.tensor.set_key(key);
  made.tensor.set_dtype(dtype);
  for (const int64_t size : shape) made.tensor.add_shape(size);
  v1::Piece* piece = made.tensor.add_pieces();
  piece->set_chunk_size_bytes(chunk_bytes);
  const size_t step = chunk_bytes == 0 ? bytes.size() : static_cast<size_t>(chunk_bytes);
  for (size_t at = 0; at < bytes.size(); at += step) {
    made.chunks.push_back(bytes.substr(at, step));
    piece->mutable_chunk_digests()->append(DigestOf(made.chunks.back()));
  }
  made.bytes = std::move(bytes);
  return made;
}

std::string Loaded::Of(const std::string& key) const {
  int64_t position = 0;
  for (const v1::Tensor& tensor : plan.tensors()) {
    if (tensor.key() == key) return bytes.substr(position, tensor.size_bytes());
    position += tensor.size_bytes();
  }
  return "no such tensor in the plan";
}

Harness::Harness(storage::StoreOptions options)
    : disk_(std::make_shared<storage::MemoryDisk>()) {
  auto store = storage::CheckpointStore::Open(options, storage::OpenMemoryEngine(disk_));
  if (!store.ok()) {
    ADD_FAILURE() << store.status();
    return;
  }
  store_ = *std::move(store);
  ServiceOptions service_options;
  service_options.max_open_uploads = options.max_open_uploads;
  service_ = MakeService(store_.get(), service_options);
}

absl::StatusOr<std::string> Harness::Send(
    const std::string& method,
    const std::vector<std::shared_ptr<google::protobuf::Message>>& requests) {
  auto session = service_->OpenInbound(method);
  if (!session.ok()) return session.status();
  for (const auto& request : requests) {
    const std::string bytes = request->SerializeAsString();
    // In two fragments, as a transport might.
    const absl::string_view view(bytes);
    const std::vector<absl::string_view> fragments = {view.substr(0, view.size() / 2),
                                                      view.substr(view.size() / 2)};
    if (auto status = (*session)->OnMessage(fragments); !status.ok()) return status;
  }
  return (*session)->OnEnd();
}

absl::StatusOr<v1::Checkpoint> Harness::Save(
    const std::vector<v1::SaveCheckpointRequest>& requests) {
  std::vector<std::shared_ptr<google::protobuf::Message>> messages;
  for (const auto& r : requests) {
    messages.push_back(std::make_shared<v1::SaveCheckpointRequest>(r));
  }
  auto bytes = Send(absl::StrCat(kTransfer, "SaveCheckpoint"), messages);
  if (!bytes.ok()) return bytes.status();
  v1::Checkpoint checkpoint;
  if (!checkpoint.ParseFromString(*bytes)) return absl::InternalError("not parsed");
  return checkpoint;
}

absl::StatusOr<v1::UploadChunksResponse> Harness::Upload(
    const std::vector<v1::UploadChunksRequest>& requests) {
  std::vector<std::shared_ptr<google::protobuf::Message>> messages;
  for (const auto& r : requests) {
    messages.push_back(std::make_shared<v1::UploadChunksRequest>(r));
  }
  auto bytes = Send(absl::StrCat(kTransfer, "UploadChunks"), messages);
  if (!bytes.ok()) return bytes.status();
  v1::UploadChunksResponse response;
  if (!response.ParseFromString(*bytes)) return absl::InternalError("not parsed");
  return response;
}

absl::StatusOr<v1::Checkpoint> Harness::SaveTensors(
    const std::string& parent, const std::vector<TestTensor>& tensors) {
  std::vector<v1::SaveCheckpointRequest> requests(1);
  requests[0].set_parent(parent);
  requests[0].set_create_model(true);
  requests[0].set_allow_empty(tensors.empty());
  for (const TestTensor& t : tensors) {
    *requests[0].mutable_manifest()->add_tensors() = t.tensor;
  }
  for (const TestTensor& t : tensors) {
    for (const std::string& chunk : t.chunks) {
      if (requests.back().data().size() + chunk.size() > (1 << 20)) {
        requests.emplace_back();
      }
      AddChunk(&requests.back(), chunk);
    }
  }
  requests.emplace_back().set_finish(true);
  return Save(requests);
}

void Harness::Damage(const std::string& model_id, int64_t version, const std::string& key,
                     int64_t chunk) {
  AtChunk(model_id, version, key, chunk, [this](uint64_t pack, uint32_t sequence) {
    ASSERT_TRUE(disk_->FlipBit(pack, sequence, 5));
  });
}

void Harness::BreakSector(const std::string& model_id, int64_t version,
                          const std::string& key, int64_t chunk) {
  AtChunk(model_id, version, key, chunk, [this](uint64_t pack, uint32_t sequence) {
    disk_->SetBadSector(pack, sequence, true);
  });
}

void Harness::AtChunk(const std::string& model_id, int64_t version,
                      const std::string& key, int64_t chunk,
                      const std::function<void(uint64_t, uint32_t)>& visit) {
  auto read = store_->reads().Open(model_id, version);
  ASSERT_TRUE(read.ok()) << read.status();
  for (const auto& tensor : (*read)->manifest().tensors()) {
    if (tensor.key() != key) continue;
    for (const auto& piece : tensor.pieces()) {
      if (chunk < piece.packs_size()) {
        const int i = static_cast<int>(chunk);
        visit(piece.packs(i), piece.sequences(i));
        return;
      }
      chunk -= piece.packs_size();
    }
  }
  FAIL() << "no such chunk of " << key;
}

absl::Status ReadToEnd(OutboundSession& session) {
  for (;;) {
    auto message = session.Next();
    if (!message.ok() || !message->has_value()) return message.status();
    absl::SleepFor((*message)->again_after.value_or(absl::ZeroDuration()));
  }
}

absl::Status LoadCollector::Add(absl::string_view message) {
  v1::LoadCheckpointResponse response;
  if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
    return absl::InternalError("a response does not parse");
  }
  ++loaded_.messages;
  loaded_.longest_message = std::max(loaded_.longest_message, message.size());
  section_bytes_ += response.plan().section_bytes();
  response.mutable_plan()->clear_section_bytes();
  loaded_.plan.MergeFrom(response.plan());
  if (response.plan().section_complete()) {
    const int last = loaded_.plan.sections_size() - 1;
    if (last < 0 ||
        !loaded_.plan.mutable_sections(last)->MergeFromString(section_bytes_)) {
      return absl::InternalError("the slices of a section do not parse");
    }
    section_bytes_.clear();
  }
  size_t at = 0;
  for (const v1::LoadedChunk& run : response.chunks()) {
    ++loaded_.runs;
    if (loaded_.first_position < 0) loaded_.first_position = run.position();
    const int64_t expected =
        loaded_.first_position + static_cast<int64_t>(loaded_.bytes.size());
    const std::string bytes = response.data().substr(at, run.size_bytes());
    if (run.position() != expected ||
        static_cast<int64_t>(bytes.size()) != run.size_bytes()) {
      return absl::InternalError(absl::StrCat("a run at ", run.position(), " of ",
                                              run.size_bytes(), " bytes, expected at ",
                                              expected));
    }
    if (DigestOf(bytes) != run.digest()) return absl::DataLossError("a wrong digest");
    at += bytes.size();
    loaded_.bytes += bytes;
  }
  if (at != response.data().size()) return absl::InternalError("data is not filled");
  return absl::OkStatus();
}

absl::StatusOr<Loaded> Harness::Load(const v1::LoadCheckpointRequest& request) {
  auto session = service_->OpenOutbound(absl::StrCat(kTransfer, "LoadCheckpoint"),
                                        request.SerializeAsString());
  if (!session.ok()) return session.status();
  LoadCollector collector;
  for (;;) {
    auto message = (*session)->Next();
    if (!message.ok()) return message.status();
    if (!message->has_value()) return collector.Take();
    std::string bytes = (*message)->head;
    for (const auto& payload : (*message)->payloads) {
      absl::StrAppend(&bytes, payload.view());
    }
    if (auto status = collector.Add(bytes); !status.ok()) return status;
  }
}

}  // namespace modelstore::server
