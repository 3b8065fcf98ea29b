// What surrounds the server process: readers of its log, signals, addresses, and
// data directories that cannot be used.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/checkpoints.h"
#include "tests/support/raw_client.h"
#include "tests/support/server_process.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool EndedWell(const absl::StatusOr<int>& status) {
  return status.ok() && WIFEXITED(*status) && WEXITSTATUS(*status) == 0;
}

class EnvironmentTest : public ::testing::Test {
 protected:
  EnvironmentTest() { EXPECT_EQ(pipe2(pipe_.data(), O_CLOEXEC), 0); }
  ~EnvironmentTest() override {
    for (const int end : pipe_) {
      if (end >= 0) close(end);
    }
  }

  // With stderr in the pipe.
  void Start() {
    auto server = support::ServerProcess::Start(
        {.folder = folder_.path(), .data = "", .flags = {}, .stderr_fd = pipe_[1]});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void CloseReader() {
    for (int& end : pipe_) {
      close(end);
      end = -1;
    }
  }

  // Calls that are logged, each with its error.
  void MakeLoggedCalls(int count) {
    auto store = v1::ModelStore::NewStub(server_->NewChannel());
    for (int i = 0; i < count; ++i) {
      support::Context context;
      v1::GetModelRequest request;
      request.set_name("models/absent");
      v1::Model model;
      const grpc::Status status = store->GetModel(&context, request, &model);
      ASSERT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND)
          << i << ": " << status.error_message();
    }
  }

  support::TempFolder folder_{"environment"};
  std::array<int, 2> pipe_ = {-1, -1};
  std::unique_ptr<support::ServerProcess> server_;
};

TEST_F(EnvironmentTest, ALogReaderThatIsMissingEndsNothing) {
  Start();
  CloseReader();
  MakeLoggedCalls(20);
  EXPECT_TRUE(server_->Running());
  server_->Terminate();
  EXPECT_TRUE(EndedWell(server_->WaitForExit(milliseconds(20'000))));
}

TEST_F(EnvironmentTest, ALogReaderThatIsStoppedHoldsUpNeitherCallsNorTheShutdown) {
  Start();
  // More lines than a pipe of 64 KiB holds.
  MakeLoggedCalls(1'500);
  server_->Terminate();
  EXPECT_TRUE(EndedWell(server_->WaitForExit(milliseconds(20'000))));
}

TEST_F(EnvironmentTest, AHangupOfTheTerminalEndsNothing) {
  Start();
  kill(server_->pid(), SIGHUP);
  MakeLoggedCalls(1);
  EXPECT_TRUE(server_->Running());
}

// Starts a server on a unix socket, with its log in a file.
pid_t StartOn(const std::string& address, const std::string& data,
              const std::string& log) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  dup2(out, STDERR_FILENO);
  execl(MODELSTORED_BINARY, MODELSTORED_BINARY, "--address", address.c_str(),
        "--data-dir", data.c_str(), "--log-level", "error", nullptr);
  _exit(127);
}

void AwaitFile(const std::string& path) {
  for (int i = 0; i < 600 && access(path.c_str(), F_OK) != 0; ++i) {
    std::this_thread::sleep_for(milliseconds(50));
  }
}

TEST(ServerEnvironmentTest, AUnixSocketServesSavesAndLoads) {
  support::TempFolder folder("unix");
  const std::string address = absl::StrCat("unix:", folder.path(), "/socket");
  const pid_t pid = StartOn(address, folder.path() + "/data", "/dev/stderr");
  ASSERT_GT(pid, 0);
  // A first attempt before the socket is there would be repeated after seconds only.
  AwaitFile(folder.path() + "/socket");
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  bool healthy = false;
  for (int i = 0; i < 300 && !healthy; ++i) {
    healthy = support::CheckHealth(channel, milliseconds(500)).ok();
    if (!healthy) std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_TRUE(healthy);
  {
    auto client = support::ConnectTo(address);
    ASSERT_TRUE(client.ok()) << client.status();
    const support::TensorSet content({.seed = 1, .tensors = 3, .bytes = 3 << 20});
    auto saved = support::Save(*client, "models/m", content);
    EXPECT_TRUE(saved.ok()) << saved.status();
  }
  const std::string health =
      absl::StrCat(MODELSTORED_BINARY, " --address ", address, " health");
  EXPECT_EQ(std::system(health.c_str()), 0);
  // An idle connection that nobody polls delays the server's end by up to 20 s.
  channel.reset();
  kill(pid, SIGTERM);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST(ServerEnvironmentTest, ASecondServerDoesNotTakeTheUnixSocketOfTheFirst) {
  support::TempFolder folder("two");
  const std::string socket = folder.path() + "/socket";
  const std::string address = absl::StrCat("unix:", socket);
  const std::string log = folder.path() + "/log";
  const pid_t first = StartOn(address, folder.path() + "/first", "/dev/null");
  ASSERT_GT(first, 0);
  AwaitFile(socket);
  const std::string health =
      absl::StrCat(MODELSTORED_BINARY, " --address ", address, " health");
  const auto serves = [&health] {
    for (int i = 0; i < 100; ++i) {
      if (std::system(health.c_str()) == 0) return true;
      std::this_thread::sleep_for(milliseconds(100));
    }
    return false;
  };
  ASSERT_TRUE(serves());
  const pid_t second = StartOn(address, folder.path() + "/second", log);
  ASSERT_GT(second, 0);
  int status = 0;
  for (int i = 0; i < 200 && waitpid(second, &status, WNOHANG) == 0; ++i) {
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  std::stringstream text;
  text << std::ifstream(log).rdbuf();
  EXPECT_NE(text.str().find(absl::StrCat("cannot listen on ", address,
                                         ": another server answers there")),
            std::string::npos)
      << text.str();
  EXPECT_EQ(std::system(health.c_str()), 0);
  // A socket file that nobody answers at is taken over.
  kill(first, SIGKILL);
  waitpid(first, &status, 0);
  const pid_t third = StartOn(address, folder.path() + "/first", log);
  EXPECT_TRUE(serves());
  kill(third, SIGKILL);
  waitpid(third, &status, 0);
}

// The server's only words before it gives up.
std::string FailureOf(const std::string& folder, const std::vector<std::string>& flags,
                      const std::string& data = "") {
  auto server = support::ServerProcess::Start(
      {.folder = folder, .data = data, .flags = flags, .start_timeout = seconds(10)});
  return server.ok() ? "" : std::string(server.status().message());
}

TEST(ServerEnvironmentTest, AFileInPlaceOfTheDataDirectoryIsNamedAsSuch) {
  support::TempFolder folder("plain");
  const std::string file = folder.path() + "/file";
  std::ofstream(file) << "x";
  const std::string failure = FailureOf(folder.path(), {}, file);
  EXPECT_NE(failure.find("Not a directory"), std::string::npos) << failure;
  EXPECT_EQ(failure.find("already open"), std::string::npos) << failure;
}

TEST(ServerEnvironmentTest, ADataDirectoryOfARunningServerIsOpenAlready) {
  support::TempFolder folder("twice");
  auto first = support::ServerProcess::Start({.folder = folder.path()});
  ASSERT_TRUE(first.ok()) << first.status();
  support::TempFolder other("second");
  const std::string failure = FailureOf(other.path(), {}, (*first)->data());
  EXPECT_NE(failure.find("is already open"), std::string::npos) << failure;
}

TEST(ServerEnvironmentTest, AnAddressThatCannotBeBoundIsRefusedWithItsReason) {
  support::TempFolder folder("address");
  EXPECT_NE(FailureOf(folder.path(), {"--address", "192.0.2.1", "--insecure"})
                .find("Cannot assign requested address"),
            std::string::npos);
}

}  // namespace
}  // namespace modelstore
