#include "tests/support/raw_client.h"

#include <grpcpp/generic/generic_stub.h>

#include "proto/contract/digest.h"
#include "tests/support/random_bytes.h"

namespace modelstore::support {

RawTensor::RawTensor(const std::string& key, uint64_t seed, size_t chunk_bytes,
                     int chunk_count) {
  tensor.set_section("model");
  tensor.set_key(key);
  tensor.set_dtype(v1::DTYPE_UINT8);
  tensor.add_shape(static_cast<int64_t>(chunk_bytes) * chunk_count);
  v1::Piece& piece = *tensor.add_pieces();
  piece.set_chunk_size_bytes(static_cast<int64_t>(chunk_bytes));
  for (int i = 0; i < chunk_count; ++i) {
    chunks.push_back(RandomBytes(seed * 1'000 + i, chunk_bytes));
    piece.mutable_chunk_digests()->append(DigestBytes(chunks.back()));
  }
}

std::string RawTensor::bytes() const {
  std::string all;
  for (const std::string& chunk : chunks) all += chunk;
  return all;
}

std::string DigestBytes(std::string_view bytes) {
  const Digest digest = ComputeDigest(DigestAlgorithm::kXxh3_128,
                                      absl::string_view(bytes.data(), bytes.size()));
  return std::string(digest.bytes());
}

v1::UploadChunksRequest ChunkMessage(const std::string& chunk) {
  v1::UploadChunksRequest message;
  v1::ChunkHeader& header = *message.add_chunks();
  header.set_digest(DigestBytes(chunk));
  header.set_size_bytes(static_cast<int64_t>(chunk.size()));
  message.set_data(chunk);
  return message;
}

grpc::Status SendBytes(const std::shared_ptr<grpc::Channel>& channel,
                       const std::string& method,
                       const std::vector<std::string>& messages, bool half_close,
                       std::chrono::milliseconds timeout) {
  grpc::GenericStub stub(channel);
  Context context(timeout);
  grpc::CompletionQueue queue;
  // One operation at a time. Each is limited by the deadline of the context.
  const auto wait = [&queue] {
    void* tag;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  bool open = wait();
  for (size_t i = 0; i < messages.size() && open; ++i) {
    const grpc::Slice slice(messages[i]);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    open = wait();
  }
  if (!half_close) {
    context.TryCancel();
  } else if (open) {
    call->WritesDone(nullptr);
    open = wait();
  }
  for (grpc::ByteBuffer answer; open;) {
    call->Read(&answer, nullptr);
    open = wait();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  return status;
}

grpc::Status RawClient::CreateUpload(const std::string& parent,
                                     const std::string& request_id, v1::Upload* upload,
                                     int contributions) {
  v1::CreateUploadRequest request;
  request.set_parent(parent);
  request.set_request_id(request_id);
  request.set_create_model(true);
  request.mutable_upload()->set_contribution_count(contributions);
  Context context;
  return transfer_->CreateUpload(&context, request, upload);
}

grpc::Status RawClient::Upload(const std::string& upload, int contribution,
                               const std::vector<v1::Tensor>& tensors,
                               const std::vector<std::string>& chunks) {
  Context context;
  v1::UploadChunksResponse response;
  const auto writer = transfer_->UploadChunks(&context, &response);
  v1::UploadChunksRequest first;
  first.set_upload(upload);
  first.set_contribution(contribution);
  for (const v1::Tensor& t : tensors) *first.mutable_manifest()->add_tensors() = t;
  first.set_manifest_complete(!tensors.empty());
  bool open = writer->Write(first);
  for (size_t i = 0; i < chunks.size() && open; ++i) {
    open = writer->Write(ChunkMessage(chunks[i]));
  }
  writer->WritesDone();
  return writer->Finish();
}

grpc::Status RawClient::FindMissing(const std::string& upload,
                                    const std::vector<std::string>& chunks,
                                    std::vector<int>* missing) {
  v1::FindMissingChunksRequest request;
  request.set_name(upload);
  for (const std::string& chunk : chunks) {
    request.mutable_digests()->append(DigestBytes(chunk));
  }
  Context context;
  v1::FindMissingChunksResponse response;
  const grpc::Status s = transfer_->FindMissingChunks(&context, request, &response);
  missing->assign(response.missing().begin(), response.missing().end());
  return s;
}

grpc::Status RawClient::Commit(const std::string& upload, v1::Checkpoint* checkpoint) {
  v1::CommitUploadRequest request;
  request.set_name(upload);
  Context context;
  return transfer_->CommitUpload(&context, request, checkpoint);
}

grpc::Status RawClient::Load(const v1::LoadCheckpointRequest& request, std::string* bytes,
                             v1::LoadPlan* plan) {
  Context context;
  const auto reader = transfer_->LoadCheckpoint(&context, request);
  v1::LoadCheckpointResponse response;
  while (reader->Read(&response)) {
    if (plan != nullptr && response.has_plan()) plan->MergeFrom(response.plan());
    bytes->append(response.data());
  }
  return reader->Finish();
}

}  // namespace modelstore::support
