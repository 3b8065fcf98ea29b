#include "tests/support/server_process.h"

#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace modelstore::support {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::string ReadWhole(const std::string& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in),
                     std::istreambuf_iterator<char>());
}

// Only async-signal-safe calls between fork and exec: gRPC's threads may hold any lock.
[[noreturn]] void Exec(const std::vector<char*>& argv, int out, int err, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  for (int fd = 3; fd < 1024; ++fd) close(fd);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    ServerSettings settings) {
  if (settings.data.empty()) settings.data = settings.folder + "/data";
  std::error_code error;
  std::filesystem::create_directories(settings.folder, error);
  if (error) return absl::InternalError(error.message());
  auto server = std::unique_ptr<ServerProcess>(new ServerProcess(std::move(settings)));
  if (absl::Status s = server->Restart(); !s.ok()) return s;
  return server;
}

ServerProcess::~ServerProcess() {
  if (!Running()) return;
  Terminate();
  if (!WaitForExit(milliseconds(20'000)).ok()) Kill();
}

std::string ServerProcess::address() const {
  return absl::StrCat("127.0.0.1:", port_.load());
}

absl::Status ServerProcess::Launch() {
  if (pid_ != 0) return absl::FailedPreconditionError("the server still runs");
  const std::string port_file = settings_.folder + "/port";
  std::error_code ignored;
  std::filesystem::remove(port_file, ignored);
  std::vector<std::string> args = {
      MODELSTORED_BINARY, "--port",  absl::StrCat(port_.load()),
      "--port-file",      port_file, "--data-dir",
      settings_.data};
  args.insert(args.end(), settings_.flags.begin(), settings_.flags.end());
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  const int log = open((settings_.folder + "/log").c_str(),
                       O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) return absl::InternalError("cannot open the server's log");
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    Exec(argv, log, settings_.stderr_fd >= 0 ? settings_.stderr_fd : log, parent);
  }
  close(log);
  if (pid < 0) return absl::InternalError("cannot fork");
  pid_ = pid;
  return absl::OkStatus();
}

absl::Status ServerProcess::AwaitPort(steady_clock::time_point deadline) {
  while (steady_clock::now() < deadline && Running()) {
    const std::string text = ReadWhole(settings_.folder + "/port");
    // The file is complete when it ends in a newline.
    if (!text.empty() && text.back() == '\n') {
      port_ = std::atoi(text.c_str());
      return absl::OkStatus();
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return absl::UnavailableError("modelstored wrote no port file");
}

absl::Status ServerProcess::AwaitHealth(steady_clock::time_point deadline) {
  const std::shared_ptr<grpc::Channel> channel = NewChannel();
  while (steady_clock::now() < deadline && Running()) {
    if (CheckHealth(channel, milliseconds(2'000)).ok()) return absl::OkStatus();
    std::this_thread::sleep_for(milliseconds(10));
  }
  return absl::UnavailableError("modelstored never answered SERVING");
}

absl::Status ServerProcess::Restart() {
  const auto deadline = steady_clock::now() + settings_.start_timeout;
  absl::Status status = absl::UnavailableError("modelstored did not start");
  // A client that connects to a port without a listener may get the same port for its own
  // end, which is then in use for a moment.
  while (steady_clock::now() < deadline) {
    if (absl::Status s = Launch(); !s.ok()) return s;
    status = AwaitPort(deadline);
    if (status.ok()) status = AwaitHealth(deadline);
    if (status.ok()) return status;
    Kill();
    const std::string log = LogTail();
    const bool taken = log.find("in use") != std::string::npos ||
                       log.find("can be bound now") != std::string::npos;
    if (WIFEXITED(exit_status_) && !taken) break;
    std::this_thread::sleep_for(milliseconds(100));
  }
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; its log ends:\n", LogTail()));
}

bool ServerProcess::Running() {
  if (pid_ == 0) return false;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
  exit_status_ = status;
  pid_ = 0;
  if (WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0)) {
    std::fprintf(stderr, "the server ended by itself (status %d); its log ends:\n%s\n",
                 status, LogTail().c_str());
  }
  return false;
}

void ServerProcess::Kill() {
  if (!Running()) return;
  kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  exit_status_ = status;
  pid_ = 0;
}

void ServerProcess::Terminate() {
  if (Running()) kill(pid_, SIGTERM);
}

absl::StatusOr<int> ServerProcess::WaitForExit(milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  while (Running()) {
    if (steady_clock::now() > deadline) {
      return absl::DeadlineExceededError("the server has not ended");
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  return exit_status_;
}

std::string ServerProcess::LogTail() const {
  const std::string log = ReadWhole(settings_.folder + "/log");
  constexpr size_t kTail = 4'000;
  return log.substr(log.size() - std::min(log.size(), kTail));
}

std::shared_ptr<grpc::Channel> ServerProcess::NewChannel() const {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  return grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), args);
}

absl::StatusOr<v1::Stats> ServerProcess::Stats() {
  const auto stub = v1::ModelStore::NewStub(NewChannel());
  grpc::ClientContext context;
  context.set_deadline(In(milliseconds(30'000)));
  v1::Stats stats;
  const grpc::Status s = stub->GetStats(&context, {}, &stats);
  if (!s.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(s.error_code()), s.error_message());
  }
  return stats;
}

absl::StatusOr<v1::CollectGarbageResponse::Result> ServerProcess::CollectGarbage() {
  const auto stub = v1::ModelStore::NewStub(NewChannel());
  grpc::ClientContext context;
  context.set_deadline(In(milliseconds(60'000)));
  const auto reader = stub->CollectGarbage(&context, {});
  v1::CollectGarbageResponse message;
  v1::CollectGarbageResponse last;
  while (reader->Read(&message)) last = message;
  const grpc::Status s = reader->Finish();
  if (!s.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(s.error_code()), s.error_message());
  }
  if (!last.has_result()) return absl::InternalError("CollectGarbage gave no result");
  return last.result();
}

absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                         milliseconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(In(timeout));
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  // The empty request checks the whole server. The first field of the answer is 1 for
  // SERVING.
  grpc::Slice empty("");
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                    grpc::ByteBuffer(&empty, 1), &queue);
  grpc::ByteBuffer response;
  grpc::Status status;
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (!status.ok()) {
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                        status.error_message());
  }
  grpc::Slice answer;
  if (!response.TrySingleSlice(&answer).ok() || answer.size() != 2 ||
      answer.begin()[0] != 0x08 || answer.begin()[1] != 0x01) {
    return absl::UnavailableError("not serving");
  }
  return absl::OkStatus();
}

double RssAnonMib(pid_t pid) {
  std::ifstream in(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("RssAnon:", 0) == 0) return std::atof(line.c_str() + 8) / 1024;
  }
  return 0;
}

RssSampler::RssSampler(pid_t pid)
    : thread_([this, pid] {
        while (!stop_) {
          peak_ = std::max(peak_.load(), RssAnonMib(pid));
          std::this_thread::sleep_for(milliseconds(20));
        }
      }) {}

RssSampler::~RssSampler() {
  stop_ = true;
  thread_.join();
}

std::chrono::system_clock::time_point In(milliseconds d) {
  return std::chrono::system_clock::now() + d;
}

}  // namespace modelstore::support
