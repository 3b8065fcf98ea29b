#include "proto/contract/errors.h"
#include "proto/contract/status_codec.h"
#include "server/rpc/byte_buffers.h"
#include "server/rpc/reactors.h"

namespace modelstore::server {
namespace {

absl::Status QueueFull() { return Overloaded("request queue is full: retry later"); }

// Runs the whole call as one task of the pool. Every path ends in End(), once; Finish()
// leads to OnDone(), which deletes this.
class UnaryReactor final : public grpc::ServerUnaryReactor {
 public:
  UnaryReactor(RpcHost* host, const std::string& method,
               grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
               grpc::ByteBuffer* response)
      : host_(host),
        method_(method),
        context_(context),
        request_(request),
        response_(response),
        record_(host, method, context) {
    record_.AddReceived(request->Length());
    if (auto status = host->Admit(); !status.ok()) {
      End(status);
    } else if (!host->pool->Submit([this] { Run(); })) {
      End(QueueFull());
    }
  }

  void OnDone() override {
    record_.End();
    delete this;
  }

 private:
  void Run() {
    // The client may have given up while the call was queued.
    if (context_->IsCancelled()) return End(ClientDisconnected());
    auto answer = host_->service->Call(method_, Fragments(*request_).Join());
    if (answer.ok()) {
      *response_ = ToBuffer(*answer);
      record_.AddSent(answer->size());
    }
    End(answer.status());
  }

  void End(const absl::Status& status) {
    record_.SetStatus(status);
    Finish(ToGrpcStatus(status));
  }

  RpcHost* const host_;
  const std::string& method_;
  grpc::CallbackServerContext* const context_;
  const grpc::ByteBuffer* const request_;
  grpc::ByteBuffer* const response_;
  RpcRecord record_;
};

}  // namespace

grpc::ServerUnaryReactor* StartUnary(RpcHost* host, const std::string& method,
                                     grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) {
  return new UnaryReactor(host, method, context, request, response);
}

}  // namespace modelstore::server
