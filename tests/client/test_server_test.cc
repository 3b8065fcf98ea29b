// What modelstore/testing.h promises to tests outside of this tree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <utility>

#include "modelstore/testing.h"
#include "tests/support/checkpoints.h"

namespace modelstore::support {
namespace {

constexpr char kLatest[] = "models/m/checkpoints/latest";

// An unreachable server is given up at once.
ConnectOptions NoPatience() {
  ConnectOptions options;
  options.retry_timeout = std::chrono::milliseconds(0);
  return options;
}

TEST(TestServerTest, SavesOfOneClientAreLoadedByAnother) {
  TestServer server;
  Client writer = server.NewClient();
  Client reader = server.NewClient();
  const TensorSet tensors({.seed = 1, .bytes = 5 << 20});
  auto saved = Save(writer, "models/m", tensors);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(Verify(reader, saved->name, tensors), absl::OkStatus());
}

TEST(TestServerTest, EachServerIsEmptyAtFirst) {
  TestServer first, second;
  Client client = first.NewClient();
  ASSERT_TRUE(client.CreateModel("m").ok());
  Client other = second.NewClient();
  EXPECT_TRUE(absl::IsNotFound(other.GetModel("models/m").status()));
}

TEST(TestServerTest, AStoppedServerIsUnavailableAndKeepsWhatItAcknowledged) {
  TestServer server(NoPatience());
  Client client = server.NewClient();
  const TensorSet tensors({.seed = 2});
  ASSERT_TRUE(Save(client, "models/m", tensors).ok());
  server.Stop();
  EXPECT_TRUE(absl::IsUnavailable(client.GetCheckpoint(kLatest).status()));
  EXPECT_TRUE(absl::IsUnavailable(Save(client, "models/m", tensors).status()));
  server.Start();
  EXPECT_EQ(Verify(client, kLatest, tensors), absl::OkStatus());
  EXPECT_EQ(client.GetCheckpoint(kLatest)->version, 1);
}

TEST(TestServerTest, AClientRidesOutARestart) {
  TestServer server;
  Client client = server.NewClient();
  const TensorSet tensors({.seed = 3, .bytes = 8 << 20});
  SaveHandle save = client.SaveAsync("models/m", tensors.Content());
  server.Restart();
  auto saved = save.Durable(After(std::chrono::seconds(60)));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(Verify(client, saved->name, tensors), absl::OkStatus());
}

TEST(TestServerTest, AClientThatOutlivesTheServerGetsUnavailable) {
  auto server = std::make_unique<TestServer>(NoPatience());
  Client client = server->NewClient();
  server.reset();
  EXPECT_TRUE(absl::IsUnavailable(client.GetModel("models/m").status()));
}

TEST(TestServerTest, StartingOrStoppingTwiceChangesNothing) {
  TestServer server;
  Client client = server.NewClient();
  ASSERT_TRUE(client.CreateModel("m").ok());
  server.Start();
  EXPECT_TRUE(client.GetModel("models/m").ok());
  server.Stop();
  server.Stop();
  server.Start();
  EXPECT_TRUE(client.GetModel("models/m").ok());
}

}  // namespace
}  // namespace modelstore::support
