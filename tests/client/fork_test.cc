// After fork() a client belongs to the parent alone.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <thread>

#include "modelstore/lifecycle.h"
#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::TensorSet;
using support::TestDeadline;
using support::TestStore;

// Runs `check` in a child; true if it returned true there. The child ends without
// exiting: ThreadSanitizer, at an exit, takes the parent's threads for the child's.
bool InChild(const std::function<bool()>& check) {
  int answer[2];
  EXPECT_EQ(pipe(answer), 0);
  const pid_t child = fork();
  if (child == 0) {
    const char held = check() ? 1 : 0;
    (void)!write(answer[1], &held, 1);
    raise(SIGKILL);
  }
  close(answer[1]);
  char held = 0;
  const bool answered = read(answer[0], &held, 1) == 1;
  close(answer[0]);
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
  return answered && held == 1;
}

bool Refused(const absl::Status& s) {
  return s.code() == absl::StatusCode::kFailedPrecondition;
}

TEST(ForkTest, EveryCallInTheChildIsRefusedAndTheParentContinues) {
  TestStore store;
  auto client = std::make_unique<Client>(store.NewClient());
  const TensorSet state({.seed = 1, .bytes = 10'000});
  const SaveHandle handle = client->SaveAsync("models/m", state.Content());
  ASSERT_TRUE(handle.Durable(TestDeadline()).ok());
  auto plan = client->PlanLoad("models/m/checkpoints/1");
  ASSERT_TRUE(plan.ok());
  auto watcher = ModelWatcher::Open(*client, "models/m");
  ASSERT_TRUE(watcher.ok());
  ASSERT_TRUE(watcher->Next(TestDeadline()).ok());
  EXPECT_TRUE(InChild([&] { return Refused(client->GetModel("models/m").status()); }));
  EXPECT_TRUE(InChild([&] { return Refused(client->Drain(TestDeadline())); }));
  EXPECT_TRUE(InChild([&] { return Refused(handle.Durable(TestDeadline()).status()); }));
  EXPECT_TRUE(InChild([&] { return Refused(handle.Staged(TestDeadline())); }));
  EXPECT_TRUE(InChild([&] { return Refused(handle.Finish().status()); }));
  EXPECT_TRUE(InChild([&] { return Refused(plan->Run(TestDeadline())); }));
  EXPECT_TRUE(InChild([&] {
    return Refused(ModelWatcher::Open(*client, "models/m").status()) &&
           Refused(watcher->Next(TestDeadline()).status());
  }));
  EXPECT_TRUE(InChild([&] {
    return Refused(client->PlanLoad("models/m/checkpoints/1").status()) &&
           Refused(client->SaveAsync("models/m", state.Content())
                       .Durable(TestDeadline())
                       .status());
  }));
  EXPECT_TRUE(InChild([&] {
    // Touches nothing of the parent's.
    client.reset();
    watcher = absl::CancelledError();
    return true;
  }));
  EXPECT_TRUE(client->GetModel("models/m").ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      watcher->Next(After(std::chrono::milliseconds(20))).status()));
}

// A child that connects for itself has a process of its own.
TEST(ForkTest, AChildSavesAndLoadsWithAConnectionOfItsOwn) {
  EXPECT_TRUE(InChild([] {
    TestStore store;
    Client client = store.NewClient();
    const TensorSet state({.seed = 1, .bytes = 3 << 20});
    auto info = support::Save(client, "models/m", state);
    return info.ok() && support::Verify(client, info->name, state).ok();
  }));
}

TEST(ExitTest, ExitWaitsForASaveInFlight) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto end_main_while_saving = [] {
    static TestStore* const store = new TestStore();
    // Handlers run in reverse order: this one after the library's, which is
    // registered by the first save.
    std::atexit([] {
      _exit(store->NewClient().GetCheckpoint("models/m/checkpoints/1").ok() ? 42 : 1);
    });
    store->connection().Pause();
    static const TensorSet state({.seed = 1, .bytes = 3 << 20});
    (void)store->NewClient().SaveAsync("models/m", state.Content());
    std::thread([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      store->connection().Resume();
    }).detach();
    std::exit(0);
  };
  EXPECT_EXIT(end_main_while_saving(), ::testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace modelstore
