#include "server/server.h"

#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <algorithm>
#include <chrono>
#include <future>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.pb.h"
#include "proto/contract/limits.h"
#include "server/background/maintenance_loop.h"
#include "server/background/scrub.h"
#include "server/listen_address.h"
#include "server/rpc/raw_service.h"
#include "server/rpc/rpc_host.h"
#include "storage/rocksdb/engine.h"

namespace modelstore::server {
namespace {

// Of the metadata of one RPC.
constexpr int kMaxMetadataBytes = 16 << 10;
// Bytes that gRPC reads ahead on each stream: HTTP/2's flow control window.
constexpr int kReadAheadBytes = 2 << 20;
// Time for cancelled RPCs to release their storage threads and for the store to close.
constexpr absl::Duration kCloseTime = absl::Seconds(15);

// Delay before the first scrub, so that it does not compete with the load after a start.
constexpr absl::Duration kFirstScrub = absl::Minutes(10);

int StorageThreads(const ServerConfig& config) {
  if (config.storage_threads > 0) return config.storage_threads;
  return std::max(4, 2 * static_cast<int>(std::thread::hardware_concurrency()));
}

void Configure(const ServerConfig& config, grpc::ServerBuilder* builder) {
  grpc::ResourceQuota quota("modelstored");
  // The last quarter of the budget is for messages being sent, which the quota does not
  // count (see RpcHost::outbound).
  quota.Resize(static_cast<size_t>(config.memory_budget_bytes / 4 * 3));
  builder->SetResourceQuota(quota);
  // A fixed window for every stream. With gRPC's own estimates of the connection, the
  // streams of one save on a fast network fill the quota, and gRPC cancels some of them.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kReadAheadBytes);
  builder->SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  // gRPC decompresses a message outside of the quota, before it checks the size limit:
  // 1 MiB on the wire could become 1 GiB in memory. Tensors do not compress well anyway.
  for (const grpc_compression_algorithm algorithm :
       {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder->SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              config.max_streams_per_connection);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // With SO_REUSEPORT a second server could bind the same port, and the kernel would
  // distribute connections over both without an error.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // gRPC misses a reset that arrives together with the last bytes: the kernel reports
  // only how many bytes are left to read (TCP_INQ), not the error, and no other event
  // follows. Only a probe detects such a connection.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                              static_cast<int>(absl::ToInt64Milliseconds(
                                  std::max(config.keepalive_time, absl::Seconds(1)))));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  // Clients may probe idle connections, at most every 5 s.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              5'000);
}

absl::StatusOr<std::unique_ptr<storage::CheckpointStore>> OpenStore(
    const ServerConfig& config, storage::Listener* listener) {
  storage::RocksOptions rocks;
  rocks.path = config.data_dir;
  rocks.ballast_bytes = config.ballast_bytes;
  rocks.accept_data_loss = config.accept_data_loss;
  rocks.listener = listener;
  auto engine = storage::OpenRocksEngine(rocks);
  if (!engine.ok()) return engine.status();
  storage::StoreOptions options;
  options.pack_bytes = config.pack_bytes;
  options.reserve_bytes = config.reserve_bytes;
  options.grace = config.grace;
  options.default_upload_ttl = config.upload_ttl;
  options.start_grace = config.start_grace;
  options.max_open_uploads = config.max_uploads;
  options.max_open_uploads_per_model = config.max_uploads_per_model;
  options.upload_min_idle = config.upload_min_idle;
  options.listener = listener;
  return storage::CheckpointStore::Open(options, *std::move(engine));
}

// Keeps gRPC initialized until the process exits. In gRPC 1.51 the last shutdown joins a
// thread that may poll for another 10 s if a write has ever had to wait (grpc issue
// 41050).
void KeepGrpc() {
  static const bool kept = [] {
    grpc_init();
    return true;
  }();
  (void)kept;
}

}  // namespace

// Members in the order in which they are made. Shutdown() destroys them explicitly, in
// the order that is explained there.
struct Server::State {
  explicit State(const ServerConfig& c)
      : config(c), log(c.log_level, c.log_format), listener(&log) {}

  void SetServing(bool serving) {
    if (auto* health = grpc_server->GetHealthCheckService()) {
      health->SetServingStatus(serving);
      for (const auto* service : ContractServices()) {
        health->SetServingStatus(service->full_name(), serving);
      }
    }
  }

  const ServerConfig config;
  Log log;
  LogListener listener;
  ServerParts parts;
  std::unique_ptr<StoragePool> pool;
  std::unique_ptr<StreamWatch> watch;
  RpcHost host;
  std::vector<std::unique_ptr<RawService>> services;
  std::unique_ptr<grpc::Server> grpc_server;
  std::unique_ptr<MaintenanceLoop> maintenance;
  std::unique_ptr<Scrub> scrub;
  // `maintenance`, for RPCs, which may run before it is constructed.
  std::atomic<MaintenanceLoop*> waker = nullptr;
  int port = 0;

  Mutex mutex;
  bool is_shut_down GUARDED_BY(mutex) = false;
  absl::Status shutdown_status GUARDED_BY(mutex);
};

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() {
  // If a storage thread is stuck, it still uses the state, which is leaked.
  if (!Shutdown(absl::ZeroDuration()).ok()) state_.release();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config) {
  if (auto status = ValidateConfig(config); !status.ok()) return status;
  auto state = std::make_unique<State>(config);
  auto store = OpenStore(config, &state->listener);
  if (!store.ok()) return store.status();
  ServerParts parts;
  parts.store = *std::move(store);
  return StartState(std::move(state), std::move(parts));
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config,
                                                      ServerParts parts) {
  if (auto status = ValidateConfig(config); !status.ok()) return status;
  return StartState(std::make_unique<State>(config), std::move(parts));
}

absl::StatusOr<std::unique_ptr<Server>> Server::StartState(std::unique_ptr<State> state,
                                                           ServerParts parts) {
  const ServerConfig& config = state->config;
  RpcHost& host = state->host;
  KeepGrpc();
  host.gauges = std::make_shared<Gauges>();
  state->parts = std::move(parts);
  state->pool = std::make_unique<StoragePool>(StorageThreads(config),
                                              static_cast<size_t>(config.max_queue));
  if (state->parts.service == nullptr) {
    ServiceOptions options;
    options.memory_budget_bytes = config.memory_budget_bytes;
    options.max_open_uploads = config.max_uploads;
    options.max_open_uploads_per_model = config.max_uploads_per_model;
    options.upload_min_idle = config.upload_min_idle;
    options.max_streams = config.max_streams;
    options.max_watchers = config.max_watchers;
    options.max_streams_per_connection = config.max_streams_per_connection;
    options.gauges = host.gauges;
    options.for_each = [pool = state->pool.get()](int count, const auto& each) {
      pool->ForEach(count, each);
    };
    options.draining = [&host] { return host.draining.load(); };
    state->parts.service = MakeService(state->parts.store.get(), options);
  }
  // Shares ownership of the gauges: the budgets may outlive the host.
  std::shared_ptr<std::atomic<int64_t>> held(host.gauges, &host.gauges->buffered_bytes);
  host.service = state->parts.service.get();
  host.pool = state->pool.get();
  host.inbound = std::make_shared<ByteBudget>(config.memory_budget_bytes / 4, held);
  host.outbound = std::make_shared<ByteBudget>(config.memory_budget_bytes / 4, held);
  host.log = &state->log;
  host.on_unavailable = [s = state.get()] {
    if (MaintenanceLoop* loop = s->waker.load()) loop->Wake();
  };
  host.max_streams = config.max_streams;
  host.max_watchers = config.max_watchers;
  state->watch = std::make_unique<StreamWatch>(
      config.idle_timeout, config.stall_timeout,
      [outbound = host.outbound] { return outbound->contended(); });
  host.watch = state->watch.get();

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // Links these messages into the program, so that reflection can describe error details
  // and the health service to clients.
  google::rpc::BadRequest::descriptor();
  google::rpc::Status::descriptor();
  grpc::health::v1::HealthCheckRequest::descriptor();
  // gRPC deletes an existing unix socket before it binds, even if another server uses it.
  if (AcceptsConnections(config.address)) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config.address,
                                               ": another server answers there"));
  }
  grpc::ServerBuilder builder;
  Configure(config, &builder);
  builder.AddListeningPort(TargetOf(config.address, config.port),
                           grpc::InsecureServerCredentials(), &state->port);
  for (const auto* service : ContractServices()) {
    state->services.push_back(std::make_unique<RawService>(*service, &host));
    builder.RegisterService(state->services.back().get());
  }
  state->grpc_server = builder.BuildAndStart();
  if (state->grpc_server == nullptr || state->port == 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", TargetOf(config.address, config.port), ": ",
                     ExplainListenFailure(config.address, config.port)));
  }
  state->SetServing(true);
  if (state->parts.store != nullptr) {
    state->maintenance = std::make_unique<MaintenanceLoop>(
        state->parts.store.get(), &state->log,
        MaintenanceLoop::Options{config.reopen_interval, config.collect_interval,
                                 [s = state.get()](bool serving) {
                                   if (!s->host.draining) s->SetServing(serving);
                                 }});
    state->waker = state->maintenance.get();
    if (config.scrub_bytes_per_second > 0) {
      state->scrub = std::make_unique<Scrub>(
          state->parts.store.get(), &state->log, host.gauges,
          Scrub::Options{config.scrub_bytes_per_second, config.scrub_period,
                         std::min(config.scrub_period, kFirstScrub)});
    }
  }
  state->log.Write(LogLevel::kInfo, "started",
                   {{"address", TargetOf(config.address, state->port)},
                    {"data_dir", config.data_dir},
                    {"storage_threads", StorageThreads(config)},
                    {"memory_budget_bytes", config.memory_budget_bytes}});
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

int Server::port() const { return state_->port; }

int Server::streams() const { return state_->host.streams; }

int Server::watchers() const { return state_->host.watchers; }

std::string Server::address() const {
  return TargetOf(state_->config.address, state_->port);
}

absl::Status Server::Shutdown(absl::Duration patience) {
  State& s = *state_;
  MutexLock lock(s.mutex);
  if (s.is_shut_down) return s.shutdown_status;
  s.is_shut_down = true;
  s.log.Write(
      LogLevel::kInfo, "shutting_down",
      {{"streams", s.host.streams.load()}, {"seconds", absl::ToDoubleSeconds(patience)}});
  s.host.draining = true;
  s.SetServing(false);
  // gRPC waits for every RPC without a limit, and so may closing the store. Another
  // thread waits for them, so that this one can give up.
  //
  // Order: after grpc_server->Shutdown() no RPC runs. The background threads end next,
  // then the pool, whose threads use gRPC's calls; then gRPC, the service and the store,
  // each of which uses the next.
  std::promise<void> over;
  std::future<void> is_over = over.get_future();
  std::thread stopper([&s, patience, over = std::move(over)]() mutable {
    s.grpc_server->Shutdown(absl::ToChronoTime(absl::Now() + patience));
    s.scrub.reset();
    s.maintenance.reset();
    s.watch.reset();
    s.pool.reset();
    s.grpc_server.reset();
    s.parts.service.reset();
    s.parts.store.reset();
    over.set_value();
  });
  const absl::Duration longest = patience + kCloseTime;
  // At most a year, because an infinite deadline would overflow the clock.
  if (is_over.wait_for(absl::ToChronoMilliseconds(
          std::min(longest, absl::Hours(8760)))) != std::future_status::ready) {
    stopper.detach();
    s.log.Write(LogLevel::kError, "shutdown_stuck", {{"streams", s.host.streams.load()}});
    s.shutdown_status = absl::DeadlineExceededError(
        "a storage thread does not come back: the server cannot be shut down");
    return s.shutdown_status;
  }
  stopper.join();
  s.log.Write(LogLevel::kInfo, "stopped");
  return absl::OkStatus();
}

}  // namespace modelstore::server
