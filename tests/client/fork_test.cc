// After fork() a client belongs to the parent alone.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "tests/client/test_store.h"
#include "tests/support/checkpoints.h"

namespace modelstore {
namespace {

using support::Soon;
using support::TensorSet;
using support::TestStore;

// Runs `check` in a child; true if it returned true there.
bool InChild(const std::function<bool()>& check) {
  const pid_t child = fork();
  if (child == 0) _exit(check() ? 0 : 1);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool Refused(const absl::Status& s) {
  return s.code() == absl::StatusCode::kFailedPrecondition;
}

TEST(ForkTest, EveryCallInTheChildIsRefusedAndTheParentGoesOn) {
  TestStore store;
  auto client = std::make_unique<Client>(store.NewClient());
  const TensorSet state({.seed = 1, .bytes = 10'000});
  const SaveHandle handle = client->SaveAsync("models/m", state.Content());
  ASSERT_TRUE(handle.Durable(Soon()).ok());
  auto plan = client->PlanLoad("models/m/checkpoints/1");
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(InChild([&] { return Refused(client->GetModel("models/m").status()); }));
  EXPECT_TRUE(InChild([&] { return Refused(client->Drain(Soon())); }));
  EXPECT_TRUE(InChild([&] { return Refused(handle.Durable(Soon()).status()); }));
  EXPECT_TRUE(InChild([&] { return Refused(handle.Staged(Soon())); }));
  EXPECT_TRUE(InChild([&] { return Refused(plan->Run(Soon())); }));
  EXPECT_TRUE(InChild([&] {
    return Refused(client->PlanLoad("models/m/checkpoints/1").status()) &&
           Refused(
               client->SaveAsync("models/m", state.Content()).Durable(Soon()).status());
  }));
  EXPECT_TRUE(InChild([&] {
    client.reset();  // Touches nothing of the parent's.
    return true;
  }));
  EXPECT_TRUE(client->GetModel("models/m").ok());
}

}  // namespace
}  // namespace modelstore
