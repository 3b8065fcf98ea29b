// An overloaded server refuses calls and streams with a time to wait: the client comes
// back then, not before, and neither gives up nor presses on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>

#include "modelstore/inspect.h"
#include "modelstore/lifecycle.h"
#include "proto/contract/errors.h"
#include "proto/contract/mutex.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using std::chrono::milliseconds;
using support::TensorSet;
using support::TestDeadline;
using support::TestStore;
using ::testing::HasSubstr;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int kDelayMs = 30;

// Refuses what `refuse` says, and remembers when each method was tried.
class OverloadedConnection : public Connection {
 public:
  using Refuse =
      std::function<absl::Status(std::string_view method, int lane, int attempt)>;

  OverloadedConnection(Connection& to, Refuse refuse)
      : to_(to), refuse_(std::move(refuse)) {}

  absl::StatusOr<std::string> Call(std::string_view method, std::string request,
                                   Deadline deadline) override {
    if (absl::Status s = Admit(method, 0); !s.ok()) return s;
    return to_.Call(method, std::move(request), deadline);
  }
  absl::StatusOr<std::unique_ptr<Stream>> Open(std::string_view method, int lane,
                                               Deadline deadline) override {
    if (absl::Status s = Admit(method, lane); !s.ok()) return s;
    return to_.Open(method, lane, deadline);
  }
  const ConnectOptions& options() const override { return to_.options(); }

  int attempts() const {
    MutexLock lock(mutex_);
    int all = 0;
    for (const auto& [method, count] : attempts_) all += count;
    return all;
  }
  // A refused attempt was followed by another sooner than was asked for.
  bool pressed() const {
    MutexLock lock(mutex_);
    return pressed_;
  }

 private:
  absl::Status Admit(std::string_view method, int lane) {
    MutexLock lock(mutex_);
    const auto key = std::pair(std::string(method), lane);
    const Deadline now = std::chrono::steady_clock::now();
    if (const auto it = not_before_.find(key); it != not_before_.end()) {
      if (now < it->second) pressed_ = true;
    }
    absl::Status s = refuse_(method, lane, ++attempts_[key]);
    not_before_[key] = s.ok() ? now : now + milliseconds(kDelayMs);
    return s;
  }

  Connection& to_;
  const Refuse refuse_;
  mutable Mutex mutex_;
  std::map<std::pair<std::string, int>, int> attempts_ GUARDED_BY(mutex_);
  std::map<std::pair<std::string, int>, Deadline> not_before_ GUARDED_BY(mutex_);
  bool pressed_ GUARDED_BY(mutex_) = false;
};

absl::Status Refused() { return Overloaded("1024 streams are open", kDelayMs); }

std::shared_ptr<OverloadedConnection> Overload(TestStore& store,
                                               OverloadedConnection::Refuse refuse) {
  return std::make_shared<OverloadedConnection>(store.connection(), std::move(refuse));
}

TEST(OverloadTest, EveryCallAndStreamOfASaveAndALoadWaitsAndContinues) {
  TestStore store;
  const auto connection = Overload(store, [](std::string_view, int, int attempt) {
    return attempt <= 2 ? Refused() : absl::OkStatus();
  });
  Client client(connection);
  for (const int64_t bytes : {int64_t{10'000}, 40 * kMiB}) {
    const TensorSet state({.seed = 1, .tensors = 6, .bytes = bytes});
    auto saved = support::Save(client, "models/m", state);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(support::Verify(client, saved->name, state), absl::OkStatus());
    EXPECT_TRUE(VerifyCheckpoint(client, saved->name).ok());
  }
  EXPECT_FALSE(connection->pressed());
  EXPECT_LT(connection->attempts(), 100);
}

TEST(OverloadTest, AModelIsMadeOnceTheServerTakesTheCall) {
  TestStore store;
  const auto connection = Overload(store, [](std::string_view, int, int attempt) {
    return attempt <= 2 ? Refused() : absl::OkStatus();
  });
  const auto model = Client(connection).CreateModel("m");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(connection->attempts(), 3);
  EXPECT_FALSE(connection->pressed());
}

TEST(OverloadTest, ADeletionOfWhatDoesNotExistIsReportedAsSuchAfterARefusal) {
  TestStore store;
  ASSERT_TRUE(store.NewClient().CreateModel("m").ok());
  const auto connection = Overload(store, [](std::string_view method, int, int attempt) {
    const bool refuse = method.ends_with("DeleteAlias") && attempt == 1;
    return refuse ? Refused() : absl::OkStatus();
  });
  Client client(connection);
  const absl::Status s = DeleteAlias(client, "models/m/aliases/production");
  EXPECT_EQ(s.code(), absl::StatusCode::kNotFound) << s;
  EXPECT_EQ(connection->attempts(), 3);
}

TEST(OverloadTest, OneStreamIsEnoughForALoad) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = milliseconds(200);
  TestStore store(options);
  const TensorSet state({.seed = 1, .tensors = 4, .bytes = 80 * kMiB});
  Client writer = store.NewClient();
  ASSERT_TRUE(support::Save(writer, "models/m", state).ok());
  const auto connection = Overload(store, [](std::string_view, int lane, int) {
    return lane > 0 ? Refused() : absl::OkStatus();
  });
  Client client(connection);
  EXPECT_EQ(support::Verify(client, "models/m/checkpoints/1", state), absl::OkStatus());
  EXPECT_FALSE(connection->pressed());
}

TEST(OverloadTest, AnOverloadThatDoesNotEndIsReportedAfterTheRetryTimeout) {
  ConnectOptions options = support::ImpatientOptions();
  options.retry_timeout = milliseconds(300);
  TestStore store(options);
  const auto connection =
      Overload(store, [](std::string_view, int, int) { return Refused(); });
  Client client(connection);
  for (const int64_t bytes : {int64_t{10'000}, 3 * kMiB}) {
    const TensorSet state({.seed = 1, .bytes = bytes});
    const absl::Status s = support::Save(client, "models/m", state).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(s.message()), HasSubstr("1024 streams are open"));
    EXPECT_THAT(std::string(s.message()), HasSubstr("nothing was saved"));
  }
  EXPECT_THAT(std::string(client.PlanLoad("models/m/checkpoints/1").status().message()),
              HasSubstr("1024 streams are open"));
  EXPECT_FALSE(connection->pressed());
  EXPECT_LE(connection->attempts(), 3 * (300 / kDelayMs + 1));
}

TEST(OverloadTest, APermanentErrorIsReportedAtOnce) {
  TestStore store;
  const auto connection = Overload(store, [](std::string_view, int, int) {
    return absl::ResourceExhaustedError("the disk is full");
  });
  Client client(connection);
  const TensorSet state({.seed = 1, .bytes = 3 * kMiB});
  EXPECT_TRUE(
      absl::IsResourceExhausted(support::Save(client, "models/m", state).status()));
  EXPECT_TRUE(
      absl::IsResourceExhausted(client.PlanLoad("models/m/checkpoints/1").status()));
  EXPECT_LE(connection->attempts(), 2);
}

TEST(OverloadTest, AWatcherThatIsAskedAgainAndAgainPressesNoServer) {
  TestStore store;
  Client writer = store.NewClient();
  ASSERT_TRUE(writer.CreateModel("m").ok());
  std::atomic<bool> overloaded{true};
  const auto connection = Overload(store, [&](std::string_view, int, int) {
    return overloaded ? Refused() : absl::OkStatus();
  });
  Client client(connection);
  auto watcher = ModelWatcher::Open(client, "models/m");
  ASSERT_TRUE(watcher.ok());
  absl::Status last;
  for (int i = 0; i < 50; ++i) last = watcher->Next(After(milliseconds(5))).status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(last)) << last;
  EXPECT_THAT(std::string(last.message()), HasSubstr("1024 streams are open"));
  EXPECT_FALSE(connection->pressed());
  EXPECT_LE(connection->attempts(), 50 * 5 / kDelayMs + 2);
  overloaded = false;
  auto event = watcher->Next(TestDeadline());
  ASSERT_TRUE(event.ok()) << event.status();
  EXPECT_EQ(event->kind, ModelEvent::Kind::kState);
}

}  // namespace
}  // namespace modelstore
