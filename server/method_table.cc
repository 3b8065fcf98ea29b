#include "server/method_table.h"

#include <functional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/core/request_codec.h"
#include "server/handlers/handlers.h"
#include "server/modify/modify_session.h"
#include "server/operations/collect_session.h"
#include "server/operations/compare_session.h"
#include "server/operations/prune_session.h"
#include "server/operations/verify_session.h"
#include "server/operations/watch_session.h"
#include "server/transfer/load_session.h"
#include "server/transfer/save_session.h"
#include "server/transfer/upload_session.h"

namespace modelstore::server {
namespace {

// Thread-safe: methods_ does not change after the constructor, and the handlers are
// thread-safe. Handlers and sessions refer to context_.
class ServiceImpl final : public Service {
 public:
  ServiceImpl(storage::CheckpointStore* store, const ServiceOptions& options)
      : context_{store, options, absl::Now(),
                 std::make_shared<SessionMemory>(options.memory_budget_bytes)} {
    for (const auto* service : ContractServices()) AddMethods(*service);
    AddModelHandlers();
    AddTransferHandlers();
    // Shares ownership of the watchers: storage may still be calling this while the
    // service is destroyed.
    store->WatchModels([watchers = context_.watchers](absl::string_view model_uid) {
      watchers->Changed(model_uid);
    });
  }
  ~ServiceImpl() override { context_.store->WatchModels(nullptr); }

  std::optional<MethodKind> Find(absl::string_view method) const override {
    auto found = methods_.find(method);
    if (found == methods_.end()) return std::nullopt;
    return found->second.kind;
  }

  absl::StatusOr<std::string> Call(absl::string_view method,
                                   absl::string_view request) override {
    auto found = methods_.find(method);
    if (found == methods_.end() || !found->second.call) return NotBuilt(method);
    return found->second.call(request);
  }

  absl::StatusOr<std::unique_ptr<InboundSession>> OpenInbound(
      absl::string_view method) override {
    auto found = methods_.find(method);
    if (found == methods_.end() || !found->second.inbound) return NotBuilt(method);
    return found->second.inbound();
  }

  absl::StatusOr<std::unique_ptr<OutboundSession>> OpenOutbound(
      absl::string_view method, absl::string_view request) override {
    auto found = methods_.find(method);
    if (found == methods_.end() || !found->second.outbound) return NotBuilt(method);
    return found->second.outbound(request);
  }

 private:
  struct Method {
    MethodKind kind = MethodKind::kUnary;
    // The one of `kind` is set, or none if the RPC is not implemented.
    std::function<absl::StatusOr<std::string>(absl::string_view)> call;
    std::function<std::unique_ptr<InboundSession>()> inbound;
    std::function<absl::StatusOr<std::unique_ptr<OutboundSession>>(absl::string_view)>
        outbound;
  };

  // `method` starts with a slash, which the message leaves out.
  static absl::Status NotBuilt(absl::string_view method) {
    return absl::UnimplementedError(absl::StrCat(method.substr(method.empty() ? 0 : 1),
                                                 " is not implemented by this server (",
                                                 MODELSTORE_VERSION, ")"));
  }

  // Enters every method that the API declares, without handlers.
  void AddMethods(const google::protobuf::ServiceDescriptor& service) {
    for (int i = 0; i < service.method_count(); ++i) {
      const auto& method = *service.method(i);
      Method& entry =
          methods_[absl::StrCat("/", service.full_name(), "/", method.name())];
      entry.kind = method.client_streaming()   ? MethodKind::kInbound
                   : method.server_streaming() ? MethodKind::kOutbound
                                               : MethodKind::kUnary;
    }
  }

  // Wraps a handler with parsing of the request and serialization of the response.
  template <typename Request, typename Response>
  void AddUnary(absl::string_view name,
                absl::StatusOr<Response> (*handler)(ServiceContext&, const Request&)) {
    methods_[name].call = [this, handler, name = std::string(name)](
                              absl::string_view bytes) -> absl::StatusOr<std::string> {
      Request request;
      if (auto s = ParseRequest(bytes, &request); !s.ok()) return s;
      auto response = handler(context_, request);
      if (!response.ok()) return response.status();
      return SerializeAnswer(*response, absl::StrCat("the answer of ", name));
    };
  }

  void AddModelHandlers() {
    const std::string prefix = "/modelstore.v1.ModelStore/";
    AddUnary(prefix + "CreateModel", CreateModel);
    AddUnary(prefix + "GetModel", GetModel);
    AddUnary(prefix + "ListModels", ListModels);
    AddUnary(prefix + "UpdateModel", UpdateModel);
    AddUnary(prefix + "DeleteModel", DeleteModel);
    AddUnary(prefix + "GetCheckpoint", GetCheckpoint);
    AddUnary(prefix + "ListCheckpoints", ListCheckpoints);
    AddUnary(prefix + "UpdateCheckpoint", UpdateCheckpoint);
    AddUnary(prefix + "DeleteCheckpoint", DeleteCheckpoint);
    AddUnary(prefix + "CopyCheckpoint", CopyCheckpoint);
    AddUnary(prefix + "SetAlias", SetAlias);
    AddUnary(prefix + "DeleteAlias", DeleteAlias);
    AddUnary(prefix + "ListAliases", ListAliases);
    AddUnary(prefix + "ListAliasMoves", ListAliasMoves);
    AddUnary(prefix + "AcquireLease", AcquireLease);
    AddUnary(prefix + "ReleaseLease", ReleaseLease);
    AddUnary(prefix + "ListLeases", ListLeases);
    AddUnary(prefix + "ListTensors", ListTensors);
    AddUnary(prefix + "GetSection", GetSection);
    AddUnary(prefix + "GetAttachment", GetAttachment);
    AddUnary(prefix + "ListUploads", ListUploads);
    AddUnary(prefix + "GetServerInfo", GetServerInfo);
    AddUnary(prefix + "GetStats", GetStats);
    methods_[prefix + "ModifyCheckpoint"].outbound = [this](absl::string_view request) {
      return modify::ModifySession::Open(context_, request);
    };
    methods_[prefix + "CollectGarbage"].outbound = [this](absl::string_view request) {
      return CollectSession::Open(context_, request);
    };
    methods_[prefix + "CompareCheckpoints"].outbound = [this](absl::string_view request) {
      return CompareSession::Open(context_, request);
    };
    methods_[prefix + "VerifyCheckpoint"].outbound = [this](absl::string_view request) {
      return VerifySession::Open(context_, request);
    };
    methods_[prefix + "PruneCheckpoints"].outbound = [this](absl::string_view request) {
      return PruneSession::Open(context_, request);
    };
    methods_[prefix + "WatchModel"].outbound = [this](absl::string_view request) {
      return WatchSession::Open(context_, request);
    };
  }

  void AddTransferHandlers() {
    const std::string prefix = "/modelstore.v1.CheckpointTransfer/";
    AddUnary(prefix + "CreateUpload", CreateUpload);
    AddUnary(prefix + "FindMissingChunks", FindMissingChunks);
    AddUnary(prefix + "GetUpload", GetUpload);
    AddUnary(prefix + "CommitUpload", CommitUpload);
    AddUnary(prefix + "DeleteUpload", DeleteUpload);
    methods_[prefix + "SaveCheckpoint"].inbound = [this] {
      return std::make_unique<SaveSession>(context_);
    };
    methods_[prefix + "UploadChunks"].inbound = [this] {
      return std::make_unique<UploadSession>(context_);
    };
    methods_[prefix + "LoadCheckpoint"].outbound = [this](absl::string_view request) {
      return LoadSession::Open(context_, request);
    };
  }

  ServiceContext context_;
  absl::flat_hash_map<std::string, Method> methods_;
};

}  // namespace

std::vector<const google::protobuf::ServiceDescriptor*> ContractServices() {
  // Refers to a message of each proto file, so that the linker keeps the generated code
  // that registers its services.
  return {v1::GetModelRequest::descriptor()->file()->pool()->FindServiceByName(
              "modelstore.v1.ModelStore"),
          v1::LoadCheckpointRequest::descriptor()->file()->pool()->FindServiceByName(
              "modelstore.v1.CheckpointTransfer")};
}

std::unique_ptr<Service> MakeService(storage::CheckpointStore* store,
                                     const ServiceOptions& options) {
  return std::make_unique<ServiceImpl>(store, options);
}

}  // namespace modelstore::server
