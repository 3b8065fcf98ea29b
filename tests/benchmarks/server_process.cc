#include "tests/benchmarks/server_process.h"

#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace modelstore::bench {
namespace {

void SetDeadline(grpc::ClientContext& context, int seconds) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
}

absl::Status FromGrpc(const grpc::Status& s) {
  return absl::Status(static_cast<absl::StatusCode>(s.error_code()), s.error_message());
}

}  // namespace

ServerProcess::ServerProcess(Process process, std::string address, std::string folder)
    : process_(std::move(process)),
      address_(std::move(address)),
      folder_(std::move(folder)),
      admin_(v1::ModelStore::NewStub(
          grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()))) {}

ServerProcess::~ServerProcess() {
  if (process_.pid() == 0) return;
  process_.Stop(SIGTERM, 30);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

absl::StatusOr<ServerProcess> ServerProcess::Start(const std::string& binary,
                                                   const std::string& folder, int nice) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  std::filesystem::create_directories(folder, error);
  const std::string port_file = folder + "/port";
  absl::StatusOr<Process> process =
      Process::Start({"nice", "-n", absl::StrCat(nice), binary, "--port", "0",
                      "--port-file", port_file, "--data-dir", folder + "/data", "--grace",
                      "3s", "--scrub-rate", "0", "--log-level", "warning"},
                     folder + "/log", false);
  if (!process.ok()) return process.status();
  // The file appears once the server accepts connections.
  for (int i = 0; i < 300 && process->Running(); ++i) {
    int port = 0;
    if (std::ifstream(port_file) >> port) {
      ServerProcess server(*std::move(process), absl::StrCat("127.0.0.1:", port), folder);
      if (absl::StatusOr<v1::Stats> stats = server.Stats(); !stats.ok()) {
        return stats.status();
      }
      return server;
    }
    usleep(100'000);
  }
  return absl::UnavailableError(
      absl::StrCat(binary, " did not come up; its log is ", folder, "/log"));
}

absl::StatusOr<v1::Stats> ServerProcess::Stats() {
  grpc::ClientContext context;
  SetDeadline(context, 10);
  v1::Stats stats;
  grpc::Status s = admin_->GetStats(&context, v1::GetStatsRequest(), &stats);
  if (!s.ok()) return FromGrpc(s);
  return stats;
}

absl::Status ServerProcess::DeleteModel(const std::string& name) {
  grpc::ClientContext context;
  SetDeadline(context, 120);
  v1::DeleteModelRequest request;
  request.set_name(name);
  request.set_force(true);
  v1::DeleteModelResponse response;
  grpc::Status s = admin_->DeleteModel(&context, request, &response);
  if (!s.ok()) return FromGrpc(s);
  return CollectDeleted();
}

absl::Status ServerProcess::CollectDeleted() {
  // The bytes wait for the grace time, counted from the end of the last load.
  for (int i = 0; i < 200; ++i) {
    grpc::ClientContext context;
    SetDeadline(context, 120);
    auto stream = admin_->CollectGarbage(&context, v1::CollectGarbageRequest());
    v1::CollectGarbageResponse message, result;
    while (stream->Read(&message)) result = message;
    if (grpc::Status s = stream->Finish(); !s.ok()) return FromGrpc(s);
    if (result.result().waiting_bytes() == 0) return absl::OkStatus();
    usleep(100'000);
  }
  return absl::DeadlineExceededError("deleted bytes still wait after 20 s");
}

}  // namespace modelstore::bench
