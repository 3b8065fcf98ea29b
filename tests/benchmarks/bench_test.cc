// The instruments of the benchmark, checked: a figure is worth what measures it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "tests/benchmarks/machine.h"
#include "tests/benchmarks/peer.h"
#include "tests/benchmarks/process.h"
#include "tests/benchmarks/report.h"
#include "tests/benchmarks/stalling_proxy.h"

namespace modelstore::bench {
namespace {

TEST(Report, TheMedianOfPairsIsTheMiddleOne) {
  EXPECT_EQ(Median({5, 1, 3}), 3);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.99), 4);
  EXPECT_EQ(Quantile({7}, 0.5), 7);
}

TEST(Report, AFigureSurvivesItsJsonLine) {
  testing::internal::CaptureStdout();
  Report report(nullptr);
  report.Add({"commit_ms_1000_packs", 1.25, "ms", {{"commits", 50}}});
  const std::string line = testing::internal::GetCapturedStdout();
  std::optional<Figure> figure = ParseFigure(line);
  ASSERT_TRUE(figure.has_value()) << line;
  EXPECT_EQ(figure->name, "commit_ms_1000_packs");
  EXPECT_EQ(figure->value, 1.25);
  EXPECT_EQ(figure->unit, "ms");
  EXPECT_THAT(figure->details, testing::ElementsAre(testing::Pair("commits", 50)));
}

TEST(Report, ALineThatIsNoFigureIsNone) {
  EXPECT_FALSE(ParseFigure("building 1000 packs").has_value());
  EXPECT_FALSE(ParseFigure("{\"name\": \"machine\", \"value\": \"x\"}").has_value());
  EXPECT_FALSE(ParseFigure("{\"name\": \"cut").has_value());
}

TEST(Report, TheTableReportsWhichTargetsAreMissed) {
  testing::internal::CaptureStdout();
  Report report(nullptr);
  report.Add({"save_vs_torch_save_fsync", 1.49, "ratio"});
  report.Add({"write_amplification", 1.01, "ratio"});
  report.PrintTable();
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_THAT(text, testing::HasSubstr(">= 1.5 MISSED"));
  EXPECT_THAT(text, testing::HasSubstr("<= 1.02 met"));
}

TEST(Process, ALineGoesThereAndBack) {
  absl::StatusOr<Process> cat = Process::Start({"cat"}, "/dev/null", true);
  ASSERT_TRUE(cat.ok()) << cat.status();
  ASSERT_TRUE(cat->WriteLine("hello").ok());
  EXPECT_EQ(*cat->ReadLine(10), "hello");
  cat->Stop(SIGTERM, 10);
  EXPECT_FALSE(cat->Running());
}

TEST(Process, MemoryAndProcessorTimeAreSeen) {
  const double cpu = CpuSeconds(getpid()), own_cpu = CpuSeconds(0);
  const double rss = RssAnonMib(getpid());
  double peak = 0;
  {
    RssSampler sampler(getpid());
    const std::string held(64 << 20, 'x');
    Stopwatch watch;
    while (watch.seconds() < 0.3) Settle(1 << 20);
    EXPECT_EQ(held.back(), 'x');
    peak = sampler.peak_mib();
  }
  EXPECT_GT(peak, rss + 60);
  EXPECT_GT(CpuSeconds(getpid()), cpu);
  EXPECT_GT(CpuSeconds(0), own_cpu);
}

TEST(Process, TimeOfAThreadAndItsWaitsForACoreAreSeen) {
  if (!std::filesystem::exists("/proc/thread-self/schedstat")) {
    GTEST_SKIP() << "this kernel keeps no account of waits";
  }
  ASSERT_TRUE(CoreWaitSeconds().ok()) << CoreWaitSeconds().status();
  // More threads than cores, all of which want one all the time.
  const unsigned count = 2 * std::thread::hardware_concurrency() + 1;
  std::atomic<int> waited{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count; ++i) {
    threads.emplace_back([&waited] {
      const double before = *CoreWaitSeconds();
      while (ThreadCpuSeconds() < 0.2) {
      }
      if (*CoreWaitSeconds() > before) ++waited;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(waited.load(), 0);
}

TEST(Process, BytesWrittenAreSeen) {
  const std::string path = testing::TempDir() + "modelstore_write_bytes";
  const int64_t before = WriteBytes(getpid());
  ASSERT_TRUE(DiskWriteSeconds(path, 8 << 20).ok());
  // A file system in memory writes to no disk.
  struct statfs fs {};
  statfs(testing::TempDir().c_str(), &fs);
  if (fs.f_type != 0x01021994) {
    EXPECT_GE(WriteBytes(getpid()) - before, 8 << 20);
  }
}

TEST(Process, LoopbackTrafficIsSeen) {
  const int64_t before = LoopbackBytes();
  ASSERT_TRUE(SocketSeconds(8 << 20).ok());
  EXPECT_GE(LoopbackBytes() - before, 8 << 20);
}

TEST(Machine, ItsLimitsAreMeasured) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "modelstore_bench_test").string();
  absl::StatusOr<double> disk = DiskWriteSeconds(path, 8 << 20);
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_GT(*disk, 0);
  EXPECT_FALSE(std::filesystem::exists(path));
  absl::StatusOr<double> socket = SocketSeconds(8 << 20);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_GT(*socket, 0);
  EXPECT_FALSE(DescribeMachine("/").empty());
}

// Listens on loopback; counts what arrives.
class CountingServer {
 public:
  CountingServer() : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 4);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      const int fd = accept(listener_, nullptr, nullptr);
      char data[65536];
      for (ssize_t n; (n = recv(fd, data, sizeof data, 0)) > 0;) received += n;
      close(fd);
    });
  }
  ~CountingServer() {
    thread_.join();
    close(listener_);
  }
  int port = 0;
  std::atomic<int64_t> received{0};

 private:
  int listener_;
  std::thread thread_;
};

TEST(StallingProxy, PassesItsBytesAndThenNoMoreWithoutClosing) {
  CountingServer server;
  {
    StallingProxy proxy(server.port, 100'000, 0);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(
        std::stoi(proxy.address().substr(proxy.address().find(':') + 1))));
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    const std::string data(150'000, 'x');
    ASSERT_EQ(send(fd, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
    for (int i = 0; i < 500 && (proxy.stalled() == 0 || server.received < 100'000); ++i) {
      usleep(10'000);
    }
    EXPECT_EQ(proxy.stalled(), 1);
    usleep(100'000);
    EXPECT_EQ(server.received, 100'000);
    EXPECT_EQ(send(fd, data.data(), 1, MSG_NOSIGNAL), 1) << "the client's side is open";
    close(fd);
  }
}

}  // namespace
}  // namespace modelstore::bench
