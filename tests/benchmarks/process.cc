#include "tests/benchmarks/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace modelstore::bench {
namespace {

using Clock = std::chrono::steady_clock;

std::string Slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The number after `key` in a file of `key value` lines; 0 if there is none.
int64_t FindNumber(const std::string& path, const std::string& key) {
  const std::string text = Slurp(path);
  const size_t at = text.find(key);
  return at == std::string::npos ? 0 : std::atoll(text.c_str() + at + key.size());
}

std::string ProcPath(pid_t pid, const char* file) {
  return absl::StrCat("/proc/", pid == 0 ? std::string("self") : absl::StrCat(pid), "/",
                      file);
}

}  // namespace

absl::StatusOr<Process> Process::Start(const std::vector<std::string>& argv,
                                       const std::string& log, bool capture) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "pipe");
  }
  std::vector<char*> args;
  for (const std::string& a : argv) args.push_back(const_cast<char*>(a.c_str()));
  args.push_back(nullptr);
  const int log_fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) return absl::ErrnoToStatus(errno, log);
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) {
    // A benchmark that dies must leave no server behind.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(in[0], 0);
    dup2(capture ? out[1] : log_fd, 1);
    dup2(log_fd, 2);
    execvp(args[0], args.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  close(log_fd);
  return Process(pid, in[1], out[0]);
}

Process::Process(Process&& other) noexcept
    : pid_(other.pid_), in_(other.in_), out_(other.out_), buffer_(other.buffer_) {
  other.pid_ = 0;
  other.in_ = other.out_ = -1;
}

Process::~Process() {
  Stop(SIGKILL, 10);
  if (in_ >= 0) close(in_);
  if (out_ >= 0) close(out_);
}

bool Process::Running() {
  if (pid_ != 0 && waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = 0;
  return pid_ != 0;
}

void Process::Stop(int signal, int seconds) {
  if (!Running()) return;
  kill(pid_, signal);
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  while (Running()) {
    if (Clock::now() > end) kill(pid_, SIGKILL);
    usleep(2000);
  }
}

absl::Status Process::WriteLine(const std::string& line) {
  const std::string text = line + "\n";
  if (write(in_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return absl::ErrnoToStatus(errno, "writing to a child");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Process::ReadLine(int seconds) {
  const auto end = Clock::now() + std::chrono::seconds(seconds);
  for (;;) {
    if (const size_t at = buffer_.find('\n'); at != std::string::npos) {
      std::string line = buffer_.substr(0, at);
      buffer_.erase(0, at + 1);
      return line;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    if (left.count() <= 0) return absl::DeadlineExceededError("a child does not answer");
    pollfd p{out_, POLLIN, 0};
    if (poll(&p, 1, static_cast<int>(left.count())) < 0) {
      return absl::ErrnoToStatus(errno, "poll");
    }
    char data[4096];
    const ssize_t n = p.revents ? read(out_, data, sizeof data) : -2;
    if (n == 0 || n == -1) return absl::UnavailableError("a child has ended");
    if (n > 0) buffer_.append(data, static_cast<size_t>(n));
  }
}

double CpuSeconds(pid_t pid) {
  if (pid == 0) {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
  }
  // Fields 14 and 15; the second may hold spaces and ends at the last ')'.
  const std::string text = Slurp(ProcPath(pid, "stat"));
  std::istringstream fields(text.substr(text.rfind(')') + 1));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double ThreadCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

absl::StatusOr<double> CoreWaitSeconds() {
  constexpr char kPath[] = "/proc/thread-self/schedstat";
  std::ifstream file(kPath);
  double ran = 0, waited = 0;  // nanoseconds
  if (!(file >> ran >> waited)) {
    return absl::UnavailableError(absl::StrCat("cannot read ", kPath));
  }
  return waited * 1e-9;
}

int64_t WriteBytes(pid_t pid) {
  return FindNumber(ProcPath(pid, "io"), "\nwrite_bytes:");
}

double RssAnonMib(pid_t pid) {
  return static_cast<double>(FindNumber(ProcPath(pid, "status"), "RssAnon:")) / 1024;
}

int64_t LoopbackBytes() { return FindNumber("/proc/net/dev", " lo:"); }

RssSampler::RssSampler(pid_t pid)
    : thread_([this, pid] {
        while (!stop_) {
          peak_ = std::max(peak_.load(), RssAnonMib(pid));
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
      }) {}

RssSampler::~RssSampler() {
  stop_ = true;
  thread_.join();
}

}  // namespace modelstore::bench
